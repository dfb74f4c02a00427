//! The HTTP probe: every page is answered with one of the expected statuses, and with the body that
//! it should have.
//!
//! ```text
//!   page ─► connect ─► TLS ─► request ─► head ─► body, as far as it decides ─► judge ─► next page
//! ```
//! What a hostile server sends is bounded in bytes ([`WantedBody`], `one::HEAD_BYTES`) and in time.

mod one;
mod pattern;
pub(super) mod two;
mod wanted;

use std::net::SocketAddr;

use locum_plan::{HttpPage, HttpQuestion, HttpVersion, Verdict};

use super::dial::FirstWord;
use super::{Answer, Shared, WaitingFor, Whom, dial, tls};
use wanted::WantedBody;

pub(crate) use pattern::Patterns;

/// For the details of runs that take too long.
const ASKING: WaitingFor = "no response";

/// Asks for each page once, until one is not as it should be.
pub(crate) async fn probe(
    whom: Whom<'_>,
    question: &HttpQuestion,
    shared: &Shared,
    stage: &mut WaitingFor,
) -> Answer {
    let mut last = Answer::pass(String::new());
    for page in &question.pages {
        let answer = match ask(whom, question, page, shared, stage).await {
            Ok(answer) | Err(answer) => answer,
        };
        match answer.verdict {
            Verdict::Pass => last = answer,
            _ if question.pages.len() > 1 => {
                return Answer { detail: format!("{}: {}", page.path, answer.detail), ..answer };
            }
            _ => return answer,
        }
    }
    last
}

async fn ask(
    whom: Whom<'_>,
    question: &HttpQuestion,
    page: &HttpPage,
    shared: &Shared,
    stage: &mut WaitingFor,
) -> Result<Answer, Answer> {
    let wanted = WantedBody::new(page, &shared.patterns)?;
    let host = host(page, whom.target, question.tls.is_some());
    let request = one::request(page, &host, question.version)?;
    *stage = super::CONNECTING;
    let mut stream = dial::connect(whom, FirstWord::Ours).await?;
    let is_http2 = question.version == HttpVersion::Http2;
    // What few checks need is boxed: the others would hold room for it.
    let Some(settings) = &question.tls else {
        *stage = ASKING;
        if is_http2 {
            return Box::pin(two::exchange(stream, "http", &host, page, wanted, stage)).await;
        }
        let exchanged = one::exchange(&mut stream, &request, page, wanted, stage).await?;
        if exchanged.is_whole {
            dial::reset(&stream);
        }
        return Ok(exchanged.answer);
    };
    *stage = tls::SHAKING_HANDS;
    let shaking = tls::wrap(stream, settings, is_http2, &host, whom.target, shared);
    let mut stream = Box::pin(shaking).await?;
    *stage = ASKING;
    if is_http2 {
        return Box::pin(two::exchange(stream, "https", &host, page, wanted, stage)).await;
    }
    let exchange = one::exchange(&mut stream, &request, page, wanted, stage);
    Ok(Box::pin(exchange).await?.answer)
}

/// Value of the Host header.
fn host(page: &HttpPage, target: SocketAddr, is_encrypted: bool) -> String {
    let default_port = if is_encrypted { 443 } else { 80 };
    match (&page.host, target) {
        (Some(host), _) => host.clone(),
        (None, SocketAddr::V4(target)) if target.port() == default_port => target.ip().to_string(),
        (None, SocketAddr::V6(target)) if target.port() == default_port => {
            format!("[{}]", target.ip())
        }
        (None, target) => target.to_string(),
    }
}
