//! Lists of what must hold, as the owners of the engine's state promise it.

/// The first of these that does not hold, in its words.
pub fn kept<W: AsRef<str>>(promises: &[(bool, W)]) -> Result<(), String> {
    match promises.iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(broken.as_ref().to_owned()),
        None => Ok(()),
    }
}
