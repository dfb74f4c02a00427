//! Which file, read as which node.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::LazyLock;

use locum_config::{Context, Loaded, load};

use crate::cli::Configuration;
use crate::source::FileSource;

/// Where a plan comes from, to read it again at a reload.
#[derive(Clone, Debug)]
pub struct Origin {
    path: String,
    node: Option<String>,
    config_id: Option<String>,
}

impl Origin {
    /// The path is made absolute, so that a reload reads the same file whatever becomes of the
    /// working directory.
    pub fn new(from: &Configuration) -> Self {
        let path = std::path::absolute(&from.config).unwrap_or_else(|_| from.config.clone());
        Self::read_from(&path, from)
    }

    /// As given, for messages that should show what was typed.
    pub fn as_typed(from: &Configuration) -> Self {
        Self::read_from(&from.config, from)
    }

    fn read_from(path: &Path, from: &Configuration) -> Self {
        Self { path: text(path), node: from.node.clone(), config_id: from.config_id.clone() }
    }

    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// Reads it now.
    pub fn load(&self) -> Loaded {
        let host = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let context = Context {
            node: self.node.as_deref(),
            host_name: &host,
            config_id: self.config_id.as_deref(),
            environment: &environment,
            seed: *SEED,
        };
        load(&FileSource, &self.path, &context)
    }
}

/// One for each process: a reload of the same file has the same random numbers.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
