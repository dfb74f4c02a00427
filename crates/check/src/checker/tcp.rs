//! The TCP probe: a connection can be opened.

use super::dial;
use super::{Answer, Whom};

/// Connects once and closes.
pub(crate) async fn probe(whom: Whom<'_>) -> Answer {
    match dial::connect(whom).await {
        Ok(_) => Answer::pass("connected"),
        Err(error) => error.into(),
    }
}
