//! The SMTP probe: a mail server greets, answers EHLO (or HELO) and takes its leave. RFC 5321.

use std::time::Duration;

use tokio::time;

use super::conversation::{Conversation, excerpt};
use super::dial::FirstWord;
use super::{Answer, WaitingFor, Whom};

/// Of all answers together: more than any greeting and list of extensions has.
const ANSWER_BYTES: usize = 16 * 1024;

/// So long a good-bye is waited for, so that a well-behaved server sees an orderly end.
const FAREWELL: Duration = Duration::from_millis(50);

/// Asks once, as a host of this name.
pub(crate) async fn probe(
    whom: Whom<'_>,
    helo: &str,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let mut server = Conversation::open(whom, FirstWord::Theirs, ANSWER_BYTES).await?;
    *stage = "no greeting";
    let greeting = reply(&mut server).await?;
    if greeting.code != 220 {
        return Ok(Answer::fail(format!("greets with {}", greeting.text)));
    }
    *stage = "no answer to EHLO";
    server.say(format!("EHLO {helo}\r\n").as_bytes()).await?;
    let mut hello = reply(&mut server).await?;
    if matches!(hello.code, 500..=504) {
        *stage = "no answer to HELO";
        server.say(format!("HELO {helo}\r\n").as_bytes()).await?;
        hello = reply(&mut server).await?;
    }
    if hello.code != 250 {
        return Ok(Answer::fail(format!("answers {} to EHLO", hello.text)));
    }
    // It has answered; whether it says good-bye does not matter.
    if server.say(b"QUIT\r\n").await.is_ok() {
        let _farewell = time::timeout(FAREWELL, reply(&mut server)).await;
    }
    Ok(Answer::pass(greeting.text))
}

struct SmtpReply {
    code: u16,
    /// Its last line.
    text: String,
}

/// One reply, of one or several lines. RFC 5321 §4.2.1.
async fn reply(server: &mut Conversation) -> Result<SmtpReply, Answer> {
    loop {
        let line = server.line().await?;
        let code = line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| digits.parse::<u16>().ok());
        match (code, line.get(3)) {
            (Some(_), Some(b'-')) => {}
            (Some(code), Some(b' ') | None) => return Ok(SmtpReply { code, text: excerpt(&line) }),
            _ => return Err(Answer::fail(format!("not an SMTP answer: {}", excerpt(&line)))),
        }
    }
}
