//! `~SEQ(…)` and `~LST(…)`: what a line begins with that is read again for each value.

use crate::keepalived::lexer::Glyph;
use crate::keepalived::parameters::trimmed;

/// What one of them says: the values that its names have, one after the other.
#[derive(PartialEq, Debug)]
pub(super) enum Generator {
    /// From `start` by `step` as far as `end`.
    Sequence { name: String, start: i64, step: i64, end: i64, is_hexadecimal: bool },
    /// Each round has a value for each name.
    List { names: Vec<String>, rounds: Vec<Vec<String>> },
}

/// The line begins with one that says nothing sensible; why.
#[derive(PartialEq, Debug)]
pub(super) struct Invalid(pub String);

/// A generator at the beginning of a line: its words, how many glyphs it takes, and whether it is
/// closed at all.
pub(super) struct Written {
    pub keyword: String,
    pub arguments: Vec<Glyph>,
    pub length: usize,
}

/// What the line begins with, if it is a generator.
pub(super) fn written(line: &[Glyph]) -> Option<Result<Written, Invalid>> {
    let text = |from: &[Glyph]| from.iter().map(|glyph| glyph.character).collect::<String>();
    let keyword = ["~SEQx", "~SEQ", "~LST"].into_iter().find(|keyword| {
        let begin = line.iter().take(keyword.len()).map(|glyph| glyph.character);
        begin.eq(keyword.chars())
    })?;
    let after = &line[keyword.len()..];
    let blanks = after.iter().take_while(|glyph| glyph.character.is_whitespace()).count();
    if after.get(blanks).is_none_or(|glyph| glyph.character != '(') {
        return Some(Err(Invalid(format!("`{keyword}` needs its values in parentheses"))));
    }
    let inner = &after[blanks + 1..];
    let Some(end) = inner.iter().position(|glyph| glyph.character == ')') else {
        let text = text(line).chars().take(40).collect::<String>();
        return Some(Err(Invalid(format!("the parenthesis of `{text}` is not closed"))));
    };
    Some(Ok(Written {
        keyword: keyword.to_owned(),
        arguments: trimmed(&inner[..end]).to_vec(),
        length: keyword.len() + blanks + 1 + end + 1,
    }))
}

impl Generator {
    /// Of its expanded arguments.
    pub fn read(keyword: &str, arguments: &[Glyph]) -> Result<Self, Invalid> {
        let text: String = arguments.iter().map(|glyph| glyph.character).collect();
        if keyword == "~LST" { list(&text) } else { sequence(&text, keyword == "~SEQx") }
    }

    /// How many rounds there are.
    pub fn rounds(&self) -> u64 {
        match self {
            Self::Sequence { start, step, end, .. } => {
                end.abs_diff(*start) / step.unsigned_abs().max(1) + 1
            }
            Self::List { rounds, .. } => rounds.len() as u64,
        }
    }

    /// Names and values of a round, from 0.
    pub fn round(&self, index: u64) -> Vec<(String, String)> {
        match self {
            Self::Sequence { name, start, step, is_hexadecimal, .. } => {
                let offset = i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(*step);
                let value = start.saturating_add(offset);
                let value = if *is_hexadecimal { format!("{value:x}") } else { value.to_string() };
                vec![(name.clone(), value)]
            }
            Self::List { names, rounds } => {
                let values = usize::try_from(index).ok().and_then(|index| rounds.get(index));
                let values = values.map_or(&[][..], Vec::as_slice);
                names.iter().cloned().zip(values.iter().cloned()).collect()
            }
        }
    }
}

/// `NAME, [[START,] [STEP,]] END`.
fn sequence(text: &str, is_hexadecimal: bool) -> Result<Generator, Invalid> {
    let mut parts = text.split(',').map(str::trim);
    let name = name(parts.next().unwrap_or_default())?;
    let numbers: Vec<i64> = parts.map(number).collect::<Result<_, _>>()?;
    let towards = |start: i64, end: i64| if start <= end { 1 } else { -1 };
    let (start, step, end) = match numbers[..] {
        [end] => {
            let start = if end > 0 { 1 } else { -1 };
            (start, towards(start, end), end)
        }
        [start, end] => (start, towards(start, end), end),
        [start, step, end] => (start, step, end),
        _ => return Err(Invalid("write ~SEQ(NAME, START, STEP, END)".to_owned())),
    };
    if step == 0 || (step > 0) != (start <= end) && start != end {
        return Err(Invalid(format!("steps of {step} do not lead from {start} to {end}")));
    }
    if is_hexadecimal && start.min(end) < 0 {
        return Err(Invalid("~SEQx is for numbers from 0".to_owned()));
    }
    Ok(Generator::Sequence { name, start, step, end, is_hexadecimal })
}

/// `NAME, VALUE, …` or `{NAME, …}, {VALUE, …}, …`.
fn list(text: &str) -> Result<Generator, Invalid> {
    let mut groups = groups(text)?.into_iter();
    let names = groups.next().unwrap_or_default();
    let names: Vec<String> = names.iter().map(|one| name(one)).collect::<Result<_, _>>()?;
    let rounds: Vec<Vec<String>> = groups.collect();
    if rounds.is_empty() {
        return Err(Invalid("~LST needs values".to_owned()));
    }
    if let Some(round) = rounds.iter().find(|round| round.len() != names.len()) {
        return Err(Invalid(format!("{} values for {} names", round.len(), names.len())));
    }
    Ok(Generator::List { names, rounds })
}

/// At each comma outside braces; those in braces are one group.
fn groups(text: &str) -> Result<Vec<Vec<String>>, Invalid> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('{') {
            Some(inner) => {
                let (inner, after) = inner
                    .split_once('}')
                    .ok_or_else(|| Invalid("a brace of ~LST is not closed".to_owned()))?;
                let group = inner.split(',').map(|one| one.trim().to_owned()).collect();
                let after = after.trim_start();
                let rest = after.strip_prefix(',').unwrap_or(after);
                if rest.len() == after.len() && !after.is_empty() {
                    return Err(Invalid(format!("a comma is missing before `{after}`")));
                }
                (group, rest)
            }
            None => {
                let (one, after) = rest.split_once(',').unwrap_or((rest, ""));
                (vec![one.trim().to_owned()], after)
            }
        };
        found.push(group);
        rest = after.trim_start();
    }
    Ok(found)
}

fn name(text: &str) -> Result<String, Invalid> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !text.is_empty() && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Invalid(format!("`{text}` is not the name of a parameter")))
}

/// As C reads it: decimal, `0x` and `0`.
fn number(text: &str) -> Result<i64, Invalid> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        (None, _) => (&*lower, 10),
    };
    let value = u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
    let value = value.ok_or_else(|| Invalid(format!("`{text}` is not a whole number")))?;
    Ok(sign * i64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(keyword: &str, text: &str) -> Vec<String> {
        let glyphs: Vec<Glyph> = text
            .chars()
            .map(|character| Glyph { character, span: Default::default(), literal: false })
            .collect();
        let Ok(generator) = Generator::read(keyword, &glyphs) else { return Vec::new() };
        let rounds = (0..generator.rounds()).map(|index| generator.round(index));
        let joined = rounds.map(|round| {
            let each: Vec<String> = round.into_iter().map(|(name, value)| name + &value).collect();
            each.join(" ")
        });
        joined.collect()
    }

    #[test]
    fn a_sequence_has_defaults_for_its_start_and_step() {
        assert_eq!(values("~SEQ", "A, 3"), ["A1", "A2", "A3"]);
        assert_eq!(values("~SEQ", "A, 0, 2"), ["A0", "A1", "A2"]);
        assert_eq!(values("~SEQ", "A, 2, 0"), ["A2", "A1", "A0"]);
        assert_eq!(values("~SEQ", "A,1,2,6"), ["A1", "A3", "A5"]);
        assert_eq!(values("~SEQ", "A,5,-2,1"), ["A5", "A3", "A1"]);
        assert_eq!(values("~SEQ", "A,-2"), ["A-1", "A-2"]);
        assert_eq!(values("~SEQx", "A, 0x9, 0xb"), ["A9", "Aa", "Ab"]);
        for wrong in ["", "A", "A,1,0,3", "A,1,-1,3", "A,x", "1+1,2", "A,1,1,1,1"] {
            assert!(values("~SEQ", wrong).is_empty(), "{wrong}");
        }
        assert!(values("~SEQx", "A,-2").is_empty());
    }

    #[test]
    fn a_list_has_one_value_or_several_a_round() {
        assert_eq!(values("~LST", "A, x, y"), ["Ax", "Ay"]);
        assert_eq!(values("~LST", "{A, B}, {1,2}, {3, 4}"), ["A1 B2", "A3 B4"]);
        for wrong in ["", "A", "{A,B},{1}", "{A,B},{1,2", "{A}{1}"] {
            assert!(values("~LST", wrong).is_empty(), "{wrong}");
        }
    }
}
