//! keepalived's words: quotes, escapes, comments and braces of one logical line.
//!
//! A line is a list of [`Glyph`]s, characters that know where they were written, so that text
//! which came from a parameter points at the parameter.

use crate::span::Span;

/// One character and its source.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Glyph {
    pub character: char,
    pub span: Span,
    /// Came from `${_HASH}` or `${_BANG}`: never begins a comment.
    pub literal: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    /// Without its quotes, escapes resolved.
    pub text: String,
    /// With its quotes.
    pub span: Span,
    /// Stood in quotes, so that its inside may hold words of its own.
    pub quoted: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Word(Word),
    Open(Span),
    Close(Span),
    /// Ends a statement.
    EndOfLine,
    /// A quote that the line does not close.
    Unclosed(Span),
}

/// The tokens of some lines; the last is `EndOfLine`.
pub(super) fn tokens(glyphs: &[Glyph]) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = glyphs;
    while let Some((first, after)) = rest.split_first() {
        rest = match first.character {
            '\n' => {
                found.push(Token::EndOfLine);
                after
            }
            '{' => {
                found.push(Token::Open(first.span));
                after
            }
            '}' => {
                found.push(Token::Close(first.span));
                after
            }
            c if begins_comment(c, first.literal) => {
                let end = rest.iter().position(|glyph| glyph.character == '\n');
                &rest[end.unwrap_or(rest.len())..]
            }
            c if c.is_whitespace() => after,
            _other => word(rest, &mut found),
        };
    }
    found.push(Token::EndOfLine);
    found
}

pub(super) const fn begins_comment(character: char, literal: bool) -> bool {
    matches!(character, '#' | '!') && !literal
}

/// Reads one word, which may have quoted parts, and returns what follows it.
fn word<'g>(glyphs: &'g [Glyph], found: &mut Vec<Token>) -> &'g [Glyph] {
    let mut word = Word { text: String::new(), span: glyphs[0].span, quoted: false };
    let mut rest = glyphs;
    while let Some((first, after)) = rest.split_first() {
        let c = first.character;
        let ends = c.is_whitespace() || matches!(c, '{' | '}') || begins_comment(c, first.literal);
        if ends {
            break;
        }
        word.span = word.span.to(first.span);
        rest = match c {
            '"' | '\'' => {
                let Some(after) = quoted(c, after, &mut word) else {
                    found.push(Token::Unclosed(first.span));
                    let end = rest.iter().position(|glyph| glyph.character == '\n');
                    return &rest[end.unwrap_or(rest.len())..];
                };
                after
            }
            _other => {
                word.text.push(c);
                after
            }
        };
    }
    found.push(Token::Word(word));
    rest
}

/// Appends the inside of a quoted part and returns what follows its closing quote.
fn quoted<'g>(quote: char, glyphs: &'g [Glyph], word: &mut Word) -> Option<&'g [Glyph]> {
    word.quoted = true;
    let mut rest = glyphs;
    loop {
        let (first, after) = rest.split_first()?;
        match first.character {
            c if c == quote => {
                word.span = word.span.to(first.span);
                return Some(after);
            }
            '\n' => return None,
            '\\' if quote == '"' => {
                rest = escape(after, &mut word.text);
            }
            c => {
                word.text.push(c);
                rest = after;
            }
        }
    }
}

/// What follows a backslash in double quotes: `\n`, `\t`, `\xNN`, `\NNN`, `\cC`; any other
/// character stands for itself, and what stands inside a script string keeps its backslash.
fn escape<'g>(glyphs: &'g [Glyph], text: &mut String) -> &'g [Glyph] {
    let Some((first, after)) = glyphs.split_first() else { return glyphs };
    let (character, after) = match first.character {
        'n' => ('\n', after),
        't' => ('\t', after),
        'r' => ('\r', after),
        'b' => ('\u{8}', after),
        'f' => ('\u{c}', after),
        'a' => ('\u{7}', after),
        'v' => ('\u{b}', after),
        'e' => ('\u{1b}', after),
        'x' => match number(after, 16, 2) {
            Some(read) => read,
            None => ('x', after),
        },
        'c' => match after.split_first() {
            Some((control, after)) if control.character.is_ascii() => {
                (char::from(control.character as u8 & 0x1f), after)
            }
            _other => ('c', after),
        },
        c if c.is_digit(8) => match number(glyphs, 8, 3) {
            Some(read) => read,
            None => (c, after),
        },
        c => (c, after),
    };
    text.push(character);
    after
}

/// Up to `most` digits, as the character of that number.
fn number(glyphs: &[Glyph], radix: u32, most: usize) -> Option<(char, &[Glyph])> {
    let digits =
        glyphs.iter().take(most).take_while(|glyph| glyph.character.is_digit(radix)).count();
    let value = glyphs[..digits]
        .iter()
        .filter_map(|glyph| glyph.character.to_digit(radix))
        .fold(0, |value, digit| value * radix + digit);
    let character = char::from_u32(value).filter(|_| digits > 0)?;
    Some((character, &glyphs[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glyphs(text: &str) -> Vec<Glyph> {
        text.char_indices()
            .map(|(at, character)| Glyph {
                character,
                span: Span { file: 0, start: at as u32, end: (at + character.len_utf8()) as u32 },
                literal: false,
            })
            .collect()
    }

    /// Tokens in short: words bare, braces, `;` for an end of line.
    fn spelled(text: &str) -> String {
        let words: Vec<String> = tokens(&glyphs(text))
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => format!("<{}>", word.text),
                Token::Open(_) => "{".to_owned(),
                Token::Close(_) => "}".to_owned(),
                Token::EndOfLine => ";".to_owned(),
                Token::Unclosed(_) => "?".to_owned(),
            })
            .collect();
        words.join("")
    }

    #[test]
    fn braces_are_words_of_their_own() {
        assert_eq!(spelled("track_interface { eth0 }"), "<track_interface>{<eth0>};");
        assert_eq!(spelled("a{b}"), "<a>{<b>};");
    }

    #[test]
    fn a_comment_runs_to_the_end_of_the_line_but_not_from_within_quotes() {
        assert_eq!(spelled("a b # c { \nd ! e"), "<a><b>;<d>;");
        assert_eq!(spelled("pass \"a#b!c\""), "<pass><a#b!c>;");
    }

    #[test]
    fn quotes_keep_spaces_and_know_escapes() {
        assert_eq!(spelled(r#"script "a 'b c' d""#), "<script><a 'b c' d>;");
        assert_eq!(spelled(r#"s "a\tb\x41\101\"""#), "<s><a\tbAA\">;");
        assert_eq!(spelled("s 'a \\n'"), "<s><a \\n>;");
    }

    #[test]
    fn an_open_quote_is_a_token_and_the_next_line_goes_on() {
        assert_eq!(spelled("a \"b\nc"), "<a>?;<c>;");
    }

    #[test]
    fn a_word_knows_where_it_stood() {
        let Token::Word(word) = &tokens(&glyphs("a \"b c\" d"))[1] else { panic!("a word") };
        assert_eq!((word.span.start, word.span.end), (2, 7));
    }
}
