//! Connections that a predecessor keeps: those that began elsewhere go there, or not any more.

use locum_engine::{Asked, Fact, Handover, Refusal};
use locum_kernel::nftables::{Handovers, Predecessor};
use locum_vrrp::Time;

use super::kind::{Apply, ApplyRound, FactKind};

/// They are elements in nftables, which end by themselves.
impl FactKind for Handovers {
    /// They find their way before the first of them comes here.
    fn hold(&mut self, round: &mut ApplyRound<'_>) {
        let now = Time::from_nanos(locum_kernel::clock::now());
        let begun = begun(round.levels, now).map(|handover| Predecessor {
            address: handover.address,
            host: handover.host,
            answers_for: handover.until.since(now),
        });
        let Err(error) = self.begin(&begun.collect::<Vec<_>>()) else { return };
        let error = error.to_string();
        for (at, level) in round.levels.iter().enumerate() {
            let refused = level.hold.iter().filter(|fact| fact.handover().is_some());
            round.refuse(
                at,
                refused.map(|fact| Refusal {
                    asked: Asked::Hold,
                    key: fact.key(),
                    error: error.clone(),
                }),
            );
        }
    }

    fn withdraw(&mut self, round: &mut ApplyRound<'_>) {
        let now = Time::from_nanos(locum_kernel::clock::now());
        let dropped = round.levels.iter().flat_map(|level| &level.drop);
        let ended: Vec<_> = dropped
            .filter_map(|removal| removal.fact.handover())
            .map(|handover| handover.address)
            .filter(|address| !begun(round.levels, now).any(|one| one.address == *address))
            .collect();
        if let Err(error) = self.forget(&ended) {
            // It ends by itself.
            tracing::debug!(%error, "connections are still handed to the predecessor");
        }
    }
}

/// Those that are not over.
fn begun(levels: &[Apply], now: Time) -> impl Iterator<Item = &Handover> {
    let held = levels.iter().flat_map(|level| level.hold.iter()).filter_map(Fact::handover);
    held.filter(move |handover| now < handover.until)
}
