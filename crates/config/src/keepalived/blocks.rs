//! Tokens become statements: words, and perhaps a block of further statements.

use crate::keepalived::lexer::{Token, Word};
use crate::span::{Report, Span};

/// `keyword argument … { … }`.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Never empty; the first is the keyword.
    pub words: Vec<Word>,
    pub block: Option<Vec<Statement>>,
    /// The brace that closes the block.
    pub closed: Option<Span>,
}

/// What a file says.
pub(super) struct Tree {
    pub statements: Vec<Statement>,
    /// Every brace that opens a block is closed: nothing is missing at the end.
    pub is_whole: bool,
}

impl Statement {
    pub fn keyword(&self) -> &Word {
        // INVARIANT: a statement is made from its first word.
        self.words.first().expect("a statement has a keyword")
    }

    pub fn arguments(&self) -> &[Word] {
        self.words.get(1..).unwrap_or_default()
    }

    /// From the keyword to the last argument.
    pub fn span(&self) -> Span {
        let first = self.keyword().span;
        self.words.last().map_or(first, |last| first.to(last.span))
    }
}

/// Blocks inside blocks; keepalived's deepest is 5.
const MAX_DEPTH: usize = 16;

/// The tree of all statements. Braces that do not match are reported.
pub(super) fn parse(tokens: Vec<Token>, report: &mut Report) -> Tree {
    let mut reader =
        BlockReader { tokens: tokens.into_iter(), report, closed: None, is_whole: true };
    let mut all = reader.block(None, 0);
    while !reader.tokens.as_slice().is_empty() {
        // Only a brace too many stops the outermost block; it has been reported.
        all.extend(reader.block(None, 0));
    }
    Tree { statements: all, is_whole: reader.is_whole }
}

/// Takes the tokens as it goes: a large file is in memory once.
struct BlockReader<'r> {
    tokens: std::vec::IntoIter<Token>,
    report: &'r mut Report,
    /// The brace that closed the block read last.
    closed: Option<Span>,
    is_whole: bool,
}

impl BlockReader<'_> {
    /// Statements up to the brace that closes what `opened` opened, or the end.
    fn block(&mut self, opened: Option<Span>, depth: usize) -> Vec<Statement> {
        let mut statements = Vec::new();
        while let Some(token) = self.tokens.next() {
            match token {
                Token::EndOfLine => {}
                Token::Unclosed(span) => {
                    self.report.error(span, "unclosed-quote", "this quote is not closed");
                }
                Token::Close(span) => {
                    if opened.is_none() {
                        let text = "this brace closes nothing";
                        let effect = "it is ignored";
                        self.report.forgiven(span, "unbalanced-brace", text, effect);
                    }
                    statements.shrink_to_fit();
                    self.closed = Some(span);
                    return statements;
                }
                Token::Open(span) => {
                    let text = "a block needs a keyword before its brace";
                    self.report.error(span, "unbalanced-brace", text);
                    self.nested(span, depth);
                }
                Token::Word(word) => statements.extend(self.statement(word, depth)),
            }
        }
        if let Some(span) = opened {
            self.report.error(span, "unbalanced-brace", "this brace is not closed");
            self.is_whole = false;
        }
        statements
    }

    /// `None` for a line with a quote that is not closed, which is no use to anybody.
    fn statement(&mut self, keyword: Word, depth: usize) -> Option<Statement> {
        let is_word = |token: &&Token| matches!(token, Token::Word(_));
        let more = self.tokens.as_slice().iter().take_while(is_word).count();
        let mut words = Vec::with_capacity(1 + more);
        words.push(keyword);
        words.extend(self.tokens.by_ref().take(more).filter_map(|token| match token {
            Token::Word(word) => Some(word),
            Token::Open(_) | Token::Close(_) | Token::EndOfLine | Token::Unclosed(_) => None,
        }));
        if let Some(Token::Unclosed(span)) = self.tokens.as_slice().first() {
            self.report.error(*span, "unclosed-quote", "this quote is not closed");
            self.tokens.next();
            return None;
        }
        // The opening brace may stand on a later line.
        let is_end = |token: &&Token| matches!(token, Token::EndOfLine);
        let ends = self.tokens.as_slice().iter().take_while(is_end).count();
        let block = match self.tokens.as_slice().get(ends) {
            Some(Token::Open(span)) => {
                let span = *span;
                self.tokens.nth(ends);
                Some(self.nested(span, depth))
            }
            Some(Token::Word(_) | Token::Close(_) | Token::EndOfLine | Token::Unclosed(_))
            | None => None,
        };
        let closed = if block.is_some() { self.closed } else { None };
        Some(Statement { words, block, closed })
    }

    fn nested(&mut self, span: Span, depth: usize) -> Vec<Statement> {
        if depth >= MAX_DEPTH {
            let text = format!("blocks nest deeper than {MAX_DEPTH}");
            self.report.error(span, "block-depth", text);
            self.skip();
            return Vec::new();
        }
        self.block(Some(span), depth + 1)
    }

    /// Passes over a block without recursion.
    fn skip(&mut self) {
        let mut open = 1usize;
        for token in self.tokens.by_ref() {
            match token {
                Token::Open(_) => open += 1,
                Token::Close(_) => open -= 1,
                Token::Word(_) | Token::EndOfLine | Token::Unclosed(_) => {}
            }
            if open == 0 {
                return;
            }
        }
    }
}
