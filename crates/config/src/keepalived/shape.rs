//! What a line looks like after its keyword.

/// What may follow the keyword.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// From so many to so many arguments.
    Line(usize, usize),
    /// From so many to so many arguments, then a block.
    Block(usize, usize),
    /// Anything: keepalived accepts it, and we do not look inside.
    Any,
}
