//! The language of a file. Where the two mean different things, a row or a function of `assemble`
//! says so; the plan has the meaning alone.

/// Which front-end reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Toml,
    /// keepalived's meaning is kept where ours is stricter.
    Keepalived,
}
