//! Which of the facts held are in place.

/// For each fact held, in its order: the kernel has said that it is in place. As a rule all are,
/// which takes no room.
#[derive(Debug, Default)]
pub struct InPlace(Option<Box<[bool]>>);

impl InPlace {
    pub fn iter(&self) -> impl Iterator<Item = bool> {
        (0..).map(|at| self.0.as_ref().is_none_or(|all| all[at]))
    }

    /// It speaks of so many facts.
    pub fn fits(&self, facts: usize) -> bool {
        self.0.as_ref().is_none_or(|all| all.len() == facts)
    }
}

impl FromIterator<bool> for InPlace {
    fn from_iter<I: IntoIterator<Item = bool>>(all: I) -> Self {
        let all: Box<[bool]> = all.into_iter().collect();
        Self(all.contains(&false).then_some(all))
    }
}
