//! HAProxy's agent protocol: a server says in a line of words how it is.

use locum_plan::ReportedWeight;

use super::conversation::{Conversation, excerpt};
use super::dial::FirstWord;
use super::{Answer, WaitingFor, Whom};

/// A line has a few words.
const ANSWER_BYTES: usize = 4096;

/// Reads one line.
pub(crate) async fn probe(whom: Whom<'_>, stage: &mut WaitingFor) -> Result<Answer, Answer> {
    let mut agent = Conversation::open(whom, FirstWord::Theirs, ANSWER_BYTES).await?;
    *stage = "no line";
    let line = agent.line().await?;
    Ok(judge(&String::from_utf8_lossy(&line)))
}

/// `up`, `ready`, `drain`, `maint`, `down`, `failed`, `stopped` and a percentage, in any order; what
/// stands behind `#` is for people. The last word of a kind counts.
fn judge(line: &str) -> Answer {
    let (words, note) = line.split_once('#').unwrap_or((line, ""));
    let mut is_up = true;
    let mut drains = false;
    let mut weight = None;
    let mut is_known = false;
    for word in words.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()) {
        let percent = word.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok());
        match (percent, word.to_ascii_lowercase().as_str()) {
            (Some(percent), _) => weight = Some(ReportedWeight::Percent(percent)),
            (None, "up") => is_up = true,
            (None, "ready") => (is_up, drains) = (true, false),
            (None, "drain") => drains = true,
            (None, "maint" | "down" | "failed" | "fail" | "stopped") => is_up = false,
            // Of how many connections it takes nobody keeps account here.
            (None, other) if other.starts_with("maxconn:") => {}
            (None, _) => continue,
        }
        is_known = true;
    }
    let said = if note.trim().is_empty() { words } else { line };
    let said = format!("says {}", excerpt(said.as_bytes()));
    match (is_known, is_up) {
        (false, _) => {
            let text = excerpt(line.as_bytes());
            Answer::fail(format!("not an answer of an agent: {text}"))
        }
        (true, false) => Answer::fail(said),
        (true, true) => {
            let weight = if drains { Some(ReportedWeight::Absolute(0)) } else { weight };
            Answer { weight, ..Answer::pass(said) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locum_plan::Verdict;

    #[test]
    fn the_words_of_an_agent_mean_what_they_mean_to_haproxy() {
        let absolute = |weight| Some(ReportedWeight::Absolute(weight));
        let percent = |weight| Some(ReportedWeight::Percent(weight));
        for (line, verdict, weight) in [
            ("up", Verdict::Pass, None),
            ("up 75%", Verdict::Pass, percent(75)),
            ("ready,50% maxconn:30", Verdict::Pass, percent(50)),
            ("drain", Verdict::Pass, absolute(0)),
            ("drain ready 20%", Verdict::Pass, percent(20)),
            ("DOWN # disk is full", Verdict::Fail, None),
            ("maint", Verdict::Fail, None),
            ("stopped 100%", Verdict::Fail, None),
            ("", Verdict::Fail, None),
            ("SSH-2.0-OpenSSH", Verdict::Fail, None),
            ("-5%", Verdict::Fail, None),
        ] {
            let answer = judge(line);
            assert_eq!((answer.verdict, answer.weight), (verdict, weight), "{line}: {answer:?}");
        }
        assert_eq!(judge("down # disk is full").detail, "says down # disk is full");
    }
}
