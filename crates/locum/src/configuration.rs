//! Which file, read as which node.

use std::path::Path;

use locum_config::{Context, Loaded, load};

use crate::cli::Configuration;
use crate::source::FileSource;

/// Where a plan comes from, to read it again at a reload.
#[derive(Clone, Debug)]
pub struct Origin {
    path: String,
    node: Option<String>,
}

impl Origin {
    /// The path is made absolute, so that a reload reads the same file whatever becomes of the
    /// working directory.
    pub fn new(from: &Configuration) -> Self {
        let path = std::path::absolute(&from.config).unwrap_or_else(|_| from.config.clone());
        Self { path: text(&path), node: from.node.clone() }
    }

    /// As given, for messages that should show what was typed.
    pub fn as_typed(from: &Configuration) -> Self {
        Self { path: text(&from.config), node: from.node.clone() }
    }

    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// Reads it now.
    pub fn load(&self) -> Loaded {
        let host = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let context = Context { node: self.node.as_deref(), host_name: &host, config_id: None };
        load(&FileSource, &self.path, &context)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
