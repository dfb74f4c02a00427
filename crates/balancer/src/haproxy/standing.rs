//! What the clients of one HAProxy have of it.

/// From the balancer's point of view; the texts are for a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// As wanted, or nothing is wanted.
    Answers,
    /// Neither answering nor failed yet.
    Pending,
    /// It does not answer.
    Failed(String),
    /// It answers, and not as it should.
    Strained(String),
}
