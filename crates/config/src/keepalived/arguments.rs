//! Arguments of a keyword as values: numbers, timers, addresses, commands.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration;
use crate::keepalived::blocks::Statement;
use crate::keepalived::lexer::Word;
use crate::keepalived::lowering::Lowering;
use crate::settings::track::MAX_WEIGHT;
use crate::span::At;
use locum_plan::{Command, CommandLine, Weight};

impl Lowering<'_> {
    pub fn bad_value(&mut self, word: &Word, message: impl Into<String>) {
        self.fault(word.span, "bad-value", message);
    }

    /// A whole number within the range, from one word.
    pub fn number<T: TryFrom<i64>>(
        &mut self,
        word: &Word,
        range: RangeInclusive<i64>,
    ) -> Option<At<T>> {
        let number = word.text.parse::<i64>().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            let text = format!("`{}` is not a whole number from {low} to {high}", word.text);
            self.fault(word.span, "out-of-range", text);
        }
        T::try_from(number?).ok().map(|number| At::new(number, word.span))
    }

    /// The first argument as a whole number within the range of its type.
    pub fn first_number<T: TryFrom<i64>>(
        &mut self,
        statement: &Statement,
        range: RangeInclusive<i64>,
    ) -> Option<At<T>> {
        self.number(statement.arguments().first()?, range)
    }

    /// The first argument as decimal seconds.
    pub fn first_seconds(&mut self, statement: &Statement) -> Option<At<Duration>> {
        let word = statement.arguments().first()?;
        match duration::seconds(&word.text) {
            Ok(length) => Some(At::new(length, word.span)),
            Err(reason) => {
                self.bad_value(word, format!("not a time in seconds: {reason}"));
                None
            }
        }
    }

    /// `on` unless the argument says otherwise.
    pub fn switch(&mut self, statement: &Statement) -> Option<At<bool>> {
        let Some(word) = statement.arguments().first() else {
            return Some(At::new(true, statement.span()));
        };
        match word.text.as_str() {
            "on" | "true" | "yes" => Some(At::new(true, word.span)),
            "off" | "false" | "no" => Some(At::new(false, word.span)),
            other => {
                let text = format!("`{other}` is neither on, true, yes nor off, false, no");
                self.bad_value(word, text);
                None
            }
        }
    }

    pub fn ip_address(&mut self, word: &Word) -> Option<At<IpAddr>> {
        match word.text.parse() {
            Ok(address) => Some(At::new(address, word.span)),
            Err(_) => {
                self.bad_value(word, format!("`{}` is not an IP address", word.text));
                None
            }
        }
    }

    /// An address of a host; keepalived does not look at a prefix length behind it.
    pub fn host(&mut self, word: &Word) -> Option<At<IpAddr>> {
        let Some((address, prefix)) = word.text.split_once('/') else {
            return self.ip_address(word);
        };
        let address = Word { text: address.to_owned(), ..word.clone() };
        let address = self.ip_address(&address)?;
        let text = format!("`{}` is the address of one host, not of a network", word.text);
        let effect = format!("`/{prefix}` is ignored");
        self.report.forgiven(word.span, "prefix-ignored", text, effect);
        Some(address)
    }

    /// The first argument as an address.
    pub fn first_address(&mut self, statement: &Statement) -> Option<At<IpAddr>> {
        statement.arguments().first().and_then(|word| self.ip_address(word))
    }

    /// `weight N [reverse]`, from the words after `weight`.
    pub fn weight(&mut self, keyword: &Word, words: &[Word]) -> Option<At<Weight>> {
        let Some(first) = words.first() else {
            self.fault(keyword.span, "missing-argument", "`weight` needs a number");
            return None;
        };
        let value = self.number(first, -MAX_WEIGHT..=MAX_WEIGHT)?.value;
        let reverse = match words.get(1) {
            None => false,
            Some(word) if word.text == "reverse" => true,
            Some(word) => {
                let text = format!("`{}` is not `reverse`, which alone may follow", word.text);
                self.report.forgiven(word.span, "bad-value", text, "the word is ignored");
                false
            }
        };
        Some(At::new(Weight { value, reverse }, first.span))
    }

    /// A script with its arguments: one word, quoted or not, that is split as a shell would split
    /// it, or several words.
    pub fn command(&mut self, words: &[Word]) -> Option<At<Command>> {
        let (first, last) = (words.first()?, words.last()?);
        let span = first.span.to(last.span);
        let argv = match words {
            [only] => split(&only.text),
            several => Ok(several.iter().map(|word| word.text.clone()).collect()),
        };
        let argv = match argv {
            Ok(argv) if argv.first().is_some_and(|program| !program.is_empty()) => argv,
            Ok(_) => {
                self.fault(span, "bad-value", "the script is empty");
                return None;
            }
            Err(reason) => {
                self.fault(span, "unclosed-quote", reason);
                return None;
            }
        };
        if argv.iter().any(|word| word.contains('\0')) {
            self.report.error(span, "bad-value", "the script contains a zero octet");
            return None;
        }
        let line = if argv[0].starts_with(['<', '>', '|', '&', ';', '(', '`', '$', '!']) {
            CommandLine::Shell(first.text.clone())
        } else {
            self.shell_words(&argv, first);
            CommandLine::Argv(argv)
        };
        let (user, group) = self.script_user.clone().unwrap_or_default();
        Some(At::new(Command { line, user, group }, span))
    }

    /// keepalived runs no shell where the program can be run directly, so these are arguments.
    fn shell_words(&mut self, argv: &[String], word: &Word) {
        let shell = |word: &&String| {
            matches!(word.as_str(), "|" | "||" | "&&" | "&" | ";" | ">" | ">>" | "<" | "2>&1")
                || word.ends_with(';')
                || word.starts_with(">/")
                || word.starts_with("2>")
        };
        if let Some(found) = argv.iter().skip(1).find(shell) {
            let text = format!("`{found}` is given to the program as it is: no shell runs this");
            self.report
                .warning(word.span, "no-shell", text)
                .help("put the line into a script of its own");
        }
    }

    /// A hook: the script, then perhaps the user and group to run it as.
    pub fn hook(&mut self, statement: &Statement) -> Option<At<Command>> {
        let arguments = statement.arguments();
        let script = arguments.get(..1)?;
        let mut command = self.command(script)?;
        if let Some(user) = arguments.get(1) {
            command.value.user = Some(user.text.clone());
            command.value.group = arguments.get(2).map(|group| group.text.clone());
        }
        Some(command)
    }
}

/// Words of a script string: white space parts them unless it is quoted or escaped.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut current: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                current.get_or_insert_default().extend(characters.next());
            }
            (Some(_), c) => current.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                current.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(current.take()),
            (None, c) => current.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("the script has a {open} that is not closed"));
    }
    words.extend(current);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_script_string_is_split_as_a_shell_would() {
        assert_eq!(split("killall -0 haproxy").unwrap(), ["killall", "-0", "haproxy"]);
        assert_eq!(split("a 'b c' \"d e\" f\\ g").unwrap(), ["a", "b c", "d e", "f g"]);
        assert_eq!(split("a ''").unwrap(), ["a", ""]);
        assert!(split("  ").unwrap().is_empty());
        assert!(split("a 'b").is_err());
    }
}
