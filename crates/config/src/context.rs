//! What a load depends on besides the text.

/// What a configuration cannot know by itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// `--node NAME`: which entry of the per-node values this node is. `None`: the host name, in
    /// full or up to its first dot.
    pub node: Option<&'a str>,
    /// The machine's host name, as the kernel has it.
    pub host_name: &'a str,
    /// keepalived's `-i ID`, for lines that begin with `@id`; the short host name when `None`.
    pub config_id: Option<&'a str>,
    /// The environment, for `${_ENV NAME}`.
    pub environment: &'a [(String, String)],
    /// Where the numbers of `${_RANDOM}` begin, where the file does not say: one for each run, so
    /// that a reload finds what was there.
    pub seed: u64,
}

impl<'a> Context<'a> {
    /// A context that follows the host name alone.
    pub const fn host(host_name: &'a str) -> Self {
        Self { node: None, host_name, config_id: None, environment: &[], seed: 0 }
    }

    /// What `@id` lines are compared with: the host name up to its first dot, where nothing is set.
    pub(crate) fn config_id(&self) -> &'a str {
        let short = self.host_name.split('.').next().unwrap_or(self.host_name);
        self.config_id.unwrap_or(short)
    }
}
