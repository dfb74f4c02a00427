//! The DNS probe: a server answers a question without an error. RFC 1035.
//!
//! Over UDP, and over TCP where the answer does not fit or TCP is asked for. Written out, because
//! of an answer only the header counts: no name of a stranger is decoded.

use locum_plan::DnsQuestion;
use tokio::time::Instant;

use super::conversation::Conversation;
use super::dial::FirstWord;
use super::{Answer, WaitingFor, Whom, udp};

/// A datagram of DNS; what is longer comes over TCP.
const DATAGRAM_BYTES: usize = 4096;

const HEADER_BYTES: usize = 12;

/// Datagrams that are no answer to us, read past at most.
const STRANGERS: usize = 64;

/// Asks once.
pub(crate) async fn probe(
    whom: Whom<'_>,
    question: &DnsQuestion,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let query = query(question, number()).map_err(Answer::unasked)?;
    if question.is_tcp {
        return over_tcp(whom, &query, stage).await;
    }
    *stage = "no answer";
    let socket = udp::connect(whom)?;
    socket.send(&query).await.map_err(|error| super::dial::refusal(&error))?;
    let mut answer = [0; DATAGRAM_BYTES];
    for _ in 0..STRANGERS {
        let received = socket.recv(&mut answer).await;
        let length = received.map_err(|error| super::dial::refusal(&error))?;
        match judge(&answer[..length], &query) {
            DnsAnswer::Ours(answer) => return Ok(answer),
            DnsAnswer::Truncated => return over_tcp(whom, &query, stage).await,
            DnsAnswer::Stranger => {}
        }
    }
    Err(Answer::fail("what it sends is no answer to the question"))
}

async fn over_tcp(whom: Whom<'_>, query: &[u8], stage: &mut WaitingFor) -> Result<Answer, Answer> {
    *stage = "no answer to connect over TCP";
    // A message has at most 65,535 octets, after its length.
    let mut server = Conversation::open(whom, FirstWord::Ours, 2 + 65_535).await?;
    *stage = "no answer over TCP";
    // INVARIANT: a name has at most 255 octets, so the length fits.
    let length = u16::try_from(query.len()).expect("a short query");
    server.say(&[&length.to_be_bytes()[..], query].concat()).await?;
    let length = server.octets(2).await?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let answer = server.octets(length).await?;
    match judge(&answer, query) {
        DnsAnswer::Ours(answer) => Ok(answer),
        DnsAnswer::Truncated | DnsAnswer::Stranger => {
            Err(Answer::fail("what it sends is no answer to the question"))
        }
    }
}

/// A number that an answer from off the path does not guess by chance.
fn number() -> u16 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::OnceLock;
    static KEY: OnceLock<(RandomState, Instant)> = OnceLock::new();
    let (key, start) = KEY.get_or_init(|| (RandomState::new(), Instant::now()));
    let mut hasher = key.build_hasher();
    hasher.write_u128(start.elapsed().as_nanos());
    (hasher.finish() & 0xffff) as u16
}

/// The error says why the name cannot be asked for.
fn query(question: &DnsQuestion, number: u16) -> Result<Vec<u8>, String> {
    let mut query = Vec::with_capacity(HEADER_BYTES + question.name.len() + 6);
    query.extend_from_slice(&number.to_be_bytes());
    // A standard query, recursion desired; one question.
    query.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let name = question.name.trim_end_matches('.');
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        let length = length.ok_or_else(|| format!("`{}` is no name of DNS", question.name))?;
        query.push(length);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    if query.len() > HEADER_BYTES + 255 {
        return Err(format!("`{}` is longer than a name of DNS", question.name));
    }
    query.extend_from_slice(&question.record.number().to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    Ok(query)
}

#[derive(PartialEq, Eq, Debug)]
enum DnsAnswer {
    Ours(Answer),
    Truncated,
    /// No answer to this query.
    Stranger,
}

fn judge(answer: &[u8], query: &[u8]) -> DnsAnswer {
    let Some(header) = answer.get(..HEADER_BYTES) else { return DnsAnswer::Stranger };
    let is_answer = header[..2] == query[..2] && header[2] & 0x80 != 0;
    // The question comes back as it was asked; with an error it may be missing.
    let question = &query[HEADER_BYTES..];
    let echoed = answer.get(HEADER_BYTES..HEADER_BYTES + question.len());
    let code = header[3] & 0x0f;
    let is_echoed = echoed.is_some_and(|echoed| echoed.eq_ignore_ascii_case(question))
        && header[4..6] == [0, 1];
    if !is_answer || !(is_echoed || (code != 0 && header[4..6] == [0, 0])) {
        return DnsAnswer::Stranger;
    }
    if header[2] & 0x02 != 0 {
        return DnsAnswer::Truncated;
    }
    let records = u16::from_be_bytes([header[6], header[7]]);
    DnsAnswer::Ours(match (code, records) {
        (0, 0) => Answer::fail("an answer without a record"),
        (0, 1) => Answer::pass("1 record"),
        (0, records) => Answer::pass(format!("{records} records")),
        (code, _) => Answer::fail(match code {
            1 => "answers FORMERR: it does not understand the query".to_owned(),
            2 => "answers SERVFAIL: it cannot find out".to_owned(),
            3 => "answers NXDOMAIN: there is no such name".to_owned(),
            4 => "answers NOTIMP: it does not answer such queries".to_owned(),
            5 => "answers REFUSED: it does not answer us".to_owned(),
            code => format!("answers with the error {code}"),
        }),
    })
}
