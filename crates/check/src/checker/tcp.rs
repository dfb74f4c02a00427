//! The TCP probe: a connection can be opened.

use super::dial::{self, FirstWord};
use super::{Answer, Whom};

/// Connects once and closes. The server sees a whole connection, as it would of a client.
pub(crate) async fn probe(whom: Whom<'_>) -> Answer {
    match dial::connect(whom, FirstWord::Theirs).await {
        Ok(_) => Answer::pass("connected"),
        Err(error) => error.into(),
    }
}
