//! A setting as a file has it: with its place, absent, or refused.

use crate::span::{At, Span};

/// A setting as it was read.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) enum Field<T> {
    #[default]
    Absent,
    /// Written, but not usable, and reported. Of a list: at least one entry was.
    Bad,
    Given(At<T>),
}

impl<T> Field<T> {
    pub fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    /// Where it is given.
    pub fn span(&self) -> Option<Span> {
        self.given().map(|at| at.span)
    }

    pub fn given_mut(&mut self) -> Option<&mut At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    pub fn into_given(self) -> Option<At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Bad => None,
        }
    }

    pub fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub fn is_bad(&self) -> bool {
        matches!(self, Self::Bad)
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Bad => Field::Bad,
            Self::Given(at) => Field::Given(at.map(change)),
        }
    }
}

impl<T> Field<Vec<T>> {
    /// The entries of a list; none when it was not written or was refused.
    pub fn list(&self) -> &[T] {
        self.value().map_or(&[][..], Vec::as_slice)
    }

    /// Adds entries: keepalived's lists may be written in several blocks.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = T>, span: Span) {
        let mut entries = entries.into_iter().peekable();
        match self {
            Self::Given(at) => at.value.extend(entries),
            Self::Absent | Self::Bad if entries.peek().is_some() => {
                *self = Self::Given(At::new(entries.collect(), span));
            }
            Self::Absent | Self::Bad => {}
        }
    }
}

/// What was read, or that it was refused.
impl<T> From<Option<At<T>>> for Field<T> {
    fn from(value: Option<At<T>>) -> Self {
        value.map_or(Self::Bad, Self::Given)
    }
}
