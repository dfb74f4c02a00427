//! Compiled regular expressions, shared by all probes that look for the same one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex::bytes::{Regex, RegexBuilder};

/// Expressions of one plan; beyond, those of earlier plans are forgotten.
const MOST: usize = 256;

/// Memory that one compiled expression may take.
const SIZE_LIMIT: usize = 1 << 20;

/// What has been compiled.
#[derive(Default, Debug)]
pub(crate) struct Patterns(Mutex<HashMap<String, Arc<Regex>>>);

impl Patterns {
    /// The compiled form; the error says what is wrong with it.
    pub(crate) fn get(&self, text: &str) -> Result<Arc<Regex>, String> {
        // A panic while it is locked leaves a whole map.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regex) = known.get(text) {
            return Ok(Arc::clone(regex));
        }
        let compiled = RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
        let regex = Arc::new(compiled.map_err(|error| format!("bad regex \"{text}\": {error}"))?);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(text.to_owned(), Arc::clone(&regex));
        Ok(regex)
    }
}
