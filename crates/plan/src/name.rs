//! Names.

use std::sync::Arc;

/// Name of an instance, check, service or node. Cheap to clone.
pub type Name = Arc<str>;
