//! What of an answer is looked at, and the judgement.

use std::fmt::Write as _;
use std::sync::Arc;

use hyper::StatusCode;
use locum_plan::{BodyDigest, BodyPattern, HttpPage, StatusRange};
use md5::Md5;
use regex::bytes::Regex;
use sha2::{Digest, Sha256};

use super::super::Answer;
use super::pattern::Patterns;

/// Of a body that is searched, kept at most this much: what stands behind is not found.
const SEARCHED_BYTES: usize = 1 << 20;

/// A body that is digested may be this long; a check that moves more is a load.
const DIGESTED_BYTES: u64 = 16 << 20;

/// A detail names at most so many of the statuses that would have done.
const NAMED_RANGES: usize = 4;

/// Takes a body in as far as it decides.
pub(super) struct WantedBody<'a> {
    page: &'a HttpPage,
    regex: Option<(Arc<Regex>, &'a BodyPattern)>,
    digest: Option<Digesting>,
    kept: Vec<u8>,
    total: u64,
}

enum Digesting {
    Md5(Box<Md5>, [u8; 16]),
    Sha256(Box<Sha256>, [u8; 32]),
}

impl<'a> WantedBody<'a> {
    pub(super) fn new(page: &'a HttpPage, patterns: &Patterns) -> Result<Self, Answer> {
        let regex = match &page.pattern {
            Some(pattern) => {
                Some((patterns.get(&pattern.regex).map_err(Answer::unasked)?, pattern))
            }
            None => None,
        };
        let digest = page.digest.map(|digest| match digest {
            BodyDigest::Md5(digest) => Digesting::Md5(Box::default(), digest),
            BodyDigest::Sha256(digest) => Digesting::Sha256(Box::default(), digest),
        });
        Ok(Self { page, regex, digest, kept: Vec::new(), total: 0 })
    }

    /// The status alone, when it decides.
    pub(super) fn judge_status(&self, status: u16) -> Option<Answer> {
        if !is_expected(status, &self.page.expect) {
            let wanted = spell_ranges(&self.page.expect);
            return Some(Answer::fail(format!("{}, wanted {wanted}", spell(status))));
        }
        (!self.page.wants_body()).then(|| Answer::pass(spell(status)))
    }

    /// The next part of the body. `true`: the rest does not matter.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<bool, Answer> {
        self.total += bytes.len() as u64;
        match &mut self.digest {
            Some(_) if self.total > DIGESTED_BYTES => {
                let text = format!("its body is longer than {} MiB", DIGESTED_BYTES >> 20);
                return Err(Answer::fail(text));
            }
            Some(Digesting::Md5(state, _)) => state.update(bytes),
            Some(Digesting::Sha256(state, _)) => state.update(bytes),
            None => {}
        }
        if self.page.text.is_some() || self.regex.is_some() {
            let room = SEARCHED_BYTES - self.kept.len();
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return Ok(self.digest.is_none() && self.kept.len() == SEARCHED_BYTES);
        }
        Ok(self.digest.is_none())
    }

    /// The judgement of the whole body.
    pub(super) fn judge(self, status: u16) -> Answer {
        if let Some(text) = &self.page.text
            && !contains(&self.kept, text.as_bytes())
        {
            return Answer::fail(format!("{}, without \"{text}\" in its body", spell(status)));
        }
        if let Some((regex, pattern)) = &self.regex {
            match (is_found(regex, pattern, &self.kept), pattern.is_unwanted) {
                (true, true) => {
                    let text = format!("{}, and its body matches \"{regex}\"", spell(status));
                    return Answer::fail(text);
                }
                (false, false) => {
                    let text =
                        format!("{}, and its body does not match \"{regex}\"", spell(status));
                    return Answer::fail(text);
                }
                (true, false) | (false, true) => {}
            }
        }
        let differs = match self.digest {
            Some(Digesting::Md5(state, wanted)) => {
                let found = state.finalize();
                differing("MD5", &found, &wanted)
            }
            Some(Digesting::Sha256(state, wanted)) => {
                let found = state.finalize();
                differing("SHA-256", &found, &wanted)
            }
            None => None,
        };
        match differs {
            Some(text) => Answer::fail(format!("{}, and its body has {text}", spell(status))),
            None => Answer::pass(spell(status)),
        }
    }
}

/// Whether there is a match that begins where it may.
fn is_found(regex: &Regex, pattern: &BodyPattern, body: &[u8]) -> bool {
    let first = pattern.first as usize;
    if first > body.len() {
        return false;
    }
    let last = pattern.last.map_or(usize::MAX, |last| last as usize);
    regex.find_at(body, first).is_some_and(|found| found.start() <= last)
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// What a body has for a digest, and should have; `None` where that is the same.
fn differing(kind: &str, found: &[u8], wanted: &[u8]) -> Option<String> {
    let text = || format!("{kind} {}, wanted {}", hexadecimal(found), hexadecimal(wanted));
    (found != wanted).then(text)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As people know it.
fn spell(status: u16) -> String {
    let mut text = format!("status {status}");
    let known = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    if let Some(reason) = known {
        let _never_fails = write!(text, " {reason}");
    }
    text
}

/// The first few of them.
fn spell_ranges(ranges: &[StatusRange]) -> String {
    let few = ranges.iter().take(NAMED_RANGES).map(ToString::to_string);
    let more = (ranges.len() > NAMED_RANGES).then(|| "…".to_owned());
    few.chain(more).collect::<Vec<_>>().join(", ")
}

fn is_expected(status: u16, expect: &[StatusRange]) -> bool {
    expect.iter().any(|range| (range.first..=range.last).contains(&status))
}
