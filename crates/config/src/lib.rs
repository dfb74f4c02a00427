//! Configuration text to one validated [`plan::Plan`], or [`diagnostic::Diagnostics`].
//!
//! Pure: the text comes in as an argument, and so do included files, through [`Source`].

pub mod plan;
