//! Which backend serves a service whose plan says "auto".
//!
//! The first that can and for which this host has all that it needs; else the first by which some
//! clients are answered, since nothing else would answer them: a data path on which no client would
//! be is none. The choice is made once, when the service begins to be served, and
//! holds for as long as it is wanted: a service that moved while it serves would lose its
//! connections. It is written down with its reason, so that the daemon that comes back after a crash
//! goes on with it, whatever the host says by then.

use std::collections::BTreeMap;

use locum_plan::{BackendChoice, BackendKind, Name, Service, WantedServices};

use crate::backend::Note;
use crate::state_file::StateFile;

/// Who gets no answer for something that is missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reach {
    /// Clients whose way leads past this host: an operator may know that there are none.
    Part,
    All,
}

/// What a backend lacks here, and for whom.
pub(crate) type Lacking = (Reach, String);

/// A backend, and why this one: a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub kind: BackendKind,
    pub why: String,
}

#[derive(Debug)]
pub(crate) struct Choices {
    state: StateFile,
    /// `BACKEND: WHY` by name of the service; of a daemon that kept no reasons `BACKEND` alone. `None`
    /// until the file was read.
    made: Option<BTreeMap<String, String>>,
    /// What was chosen since they were last taken.
    pub notes: Vec<Note>,
}

impl Choices {
    pub(crate) fn new(state: StateFile) -> Self {
        Self { state, made: None, notes: Vec::new() }
    }

    /// Of each service that was left to a choice and is not served by the first of all backends, why
    /// it fell as it did.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (Name, String)> {
        let made = self.made.iter().flatten();
        made.filter_map(|(name, choice)| {
            let (kind, why) = choice.split_once(": ")?;
            let is_bare = why == served_by(name, kind_named(kind)?);
            (!is_bare).then(|| (name.as_str().into(), why.to_owned()))
        })
    }

    /// The backend of each wanted service, in their order; `Err` says why there is none for it.
    /// `lacks` says what a backend lacks here to serve a service.
    pub(crate) fn of(
        &mut self,
        wanted: &WantedServices,
        lacks: &mut dyn FnMut(&Service, BackendKind) -> Result<(), Lacking>,
    ) -> Vec<Result<BackendKind, String>> {
        let before = self.made.take().unwrap_or_else(|| self.state.load().unwrap_or_default());
        let mut made = BTreeMap::new();
        let mut chosen = Vec::with_capacity(wanted.services.len());
        for wanted in &wanted.services {
            let service = &wanted.service;
            let earlier = || {
                let earlier = before.get(&*service.name)?;
                Some((known(earlier, service)?, earlier.clone()))
            };
            let kind = match service.backend {
                BackendChoice::Only(kind) => Ok(kind),
                BackendChoice::Auto => match earlier() {
                    Some((kind, choice)) => {
                        made.insert(service.name.to_string(), choice);
                        Ok(kind)
                    }
                    None => choose(service, &mut |kind| lacks(service, kind)).map(
                        |Choice { kind, why }| {
                            self.notes.push(Note { name: service.name.clone(), text: why.clone() });
                            let choice = format!("{}: {why}", kind.name());
                            made.insert(service.name.to_string(), choice);
                            kind
                        },
                    ),
                },
            };
            chosen.push(kind);
        }
        if made != before {
            self.state.save(&made);
        }
        self.made = Some(made);
        chosen
    }
}

/// An earlier choice, as long as the backend can do what the service asks by now.
fn known(choice: &str, service: &Service) -> Option<BackendKind> {
    let kind = kind_named(choice.split(':').next()?)?;
    kind.capabilities().lack(service).is_none().then_some(kind)
}

fn kind_named(name: &str) -> Option<BackendKind> {
    BackendKind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// The first that can and lacks nothing, else the first that can serve some clients; `Err` says of
/// each why not it.
pub(crate) fn choose(
    service: &Service,
    lacks: &mut dyn FnMut(BackendKind) -> Result<(), Lacking>,
) -> Result<Choice, String> {
    let mut reasons = Vec::new();
    let mut second_best = None;
    for kind in BackendKind::AUTOMATIC {
        let backend = kind.capabilities();
        let reason = match backend.lack(service).map(|lack| backend.explain(lack, service)) {
            Some(reason) => reason,
            None => match lacks(kind) {
                Ok(()) => return Ok(choice(service, kind, &reasons)),
                Err((Reach::All, reason)) => format!("{} cannot: {reason}", backend.title),
                Err((Reach::Part, reason)) => {
                    second_best = second_best.or(Some(kind));
                    format!("{} does not serve all clients: {reason}", backend.title)
                }
            },
        };
        reasons.push(reason);
    }
    match second_best {
        Some(kind) => Ok(choice(service, kind, &reasons)),
        None => Err(reasons.join("; ")),
    }
}

/// What an operator could write instead of the backend that cannot serve it: `use backend = "proxy"`.
pub(crate) fn way_out(service: &Service, except: &[BackendKind]) -> Option<String> {
    let mut others = BackendChoice::Auto.candidates(service).into_iter();
    let other = others.find(|kind| !except.contains(kind))?;
    Some(format!("use backend = \"{}\"", other.name()))
}

fn choice(service: &Service, kind: BackendKind, reasons: &[String]) -> Choice {
    let mut why = served_by(&service.name, kind);
    if !reasons.is_empty() {
        why = format!("{why}: {}", reasons.join("; "));
    }
    Choice { kind, why }
}

fn served_by(name: &str, kind: BackendKind) -> String {
    format!("{name} is served by {}", kind.capabilities().title)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use locum_plan::{Activity, Listener, Scheduler, WantedService};

    use super::*;

    fn level(names: &[&str], edit: impl Fn(&mut Service)) -> WantedServices {
        let services = names.iter().map(|name| {
            let listen = Listener::Address("192.0.2.1:80".parse().unwrap());
            let mut service = Service::new(Name::from(*name), listen);
            service.scheduler = Scheduler::named("wlc");
            edit(&mut service);
            let (service, activity) = (Arc::new(service), Activity::Active);
            Arc::new(WantedService { service, activity, servers: Vec::new(), lease: None })
        });
        WantedServices { services: services.collect(), ..WantedServices::default() }
    }

    /// Only this one lacks nothing.
    fn only(kind: BackendKind) -> impl FnMut(&Service, BackendKind) -> Result<(), Lacking> {
        let missing = || Err((Reach::All, "it is not there".to_owned()));
        move |_, asked| if asked == kind { Ok(()) } else { missing() }
    }

    fn all(_: &Service, _: BackendKind) -> Result<(), Lacking> {
        Ok(())
    }

    #[test]
    fn a_choice_holds_while_the_service_is_wanted_and_over_a_restart() {
        use BackendKind::{Ipvs, Proxy};
        let directory = tempfile::tempdir().unwrap();
        let state = || StateFile::new(directory.path().join("backends.json"));
        let mut choices = Choices::new(state());
        let web = level(&["web"], |_| {});
        assert_eq!(choices.of(&web, &mut only(Proxy)), [Ok(Proxy)]);
        // IPVS appears: what serves stays where it is, what is new gets the better one.
        assert_eq!(choices.of(&web, &mut all), [Ok(Proxy)]);
        let both = level(&["web", "shop"], |_| {});
        assert_eq!(choices.of(&both, &mut all), [Ok(Proxy), Ok(Ipvs)]);
        // IPVS fails: nothing moves either.
        assert_eq!(choices.of(&both, &mut only(Proxy)), [Ok(Proxy), Ok(Ipvs)]);
        let mut restarted = Choices::new(state());
        assert_eq!(restarted.of(&both, &mut only(Proxy)), [Ok(Proxy), Ok(Ipvs)]);
        // Served no more, and then anew.
        assert!(restarted.of(&level(&[], |_| {}), &mut all).is_empty());
        assert_eq!(restarted.of(&web, &mut all), [Ok(Ipvs)]);
    }

    #[test]
    fn what_was_chosen_is_said_once_and_written_down_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backends.json");
        // As it was before there were reasons.
        fs::write(&path, r#"{"old":"proxy"}"#).unwrap();
        let mut choices = Choices::new(StateFile::new(path.clone()));
        let both = level(&["old", "web"], |_| {});
        let proxy = BackendKind::Proxy;
        assert_eq!(choices.of(&both, &mut only(proxy)), [Ok(proxy), Ok(proxy)]);
        let why = "web is served by the built-in proxy: IPVS cannot: it is not there; nftables has \
                   no scheduler `wlc`, use one of rr, wrr, sh, mh";
        let notes: Vec<_> = choices.notes.drain(..).map(|note| note.text).collect();
        assert_eq!(notes, [why]);
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.contains(&format!(r#""web":"proxy: {why}""#)));
        choices.of(&both, &mut all);
        assert_eq!(choices.notes, []);
        assert_eq!(choices.reasons().collect::<Vec<_>>(), [("web".into(), why.to_owned())]);
        choices.of(&level(&["new"], |_| {}), &mut all);
        assert_eq!(choices.notes.pop().unwrap().text, "new is served by IPVS");
        assert_eq!(choices.reasons().count(), 0, "there is nothing to explain");
    }

    #[test]
    fn what_no_backend_can_serve_here_is_not_given_to_one() {
        use BackendKind::{Ipvs, Proxy};
        let directory = tempfile::tempdir().unwrap();
        let mut choices = Choices::new(StateFile::new(directory.path().join("backends.json")));
        let web = level(&["web"], |_| {});
        assert_eq!(choices.of(&web, &mut only(Proxy)), [Ok(Proxy)]);
        // An earlier choice that cannot carry it by now is none.
        let local = level(&["web"], |service| service.scheduler = Scheduler::named("lblc"));
        let reason = "IPVS cannot: it is not there; nftables has no scheduler `lblc`, use one of \
                      rr, wrr, sh, mh; the built-in proxy has no scheduler `lblc`, use one of rr, wrr, lc, wlc, sed, nq, fo, ovf, sh, mh";
        assert_eq!(choices.of(&local, &mut only(Proxy)), [Err(reason.to_owned())]);
        assert_eq!(choices.of(&local, &mut all), [Ok(Ipvs)], "it is asked again");
        let named = level(&["web"], |service| service.backend = BackendChoice::Only(Ipvs));
        let mut unasked =
            |_: &Service, _| -> Result<(), Lacking> { unreachable!("the host is not asked") };
        assert_eq!(choices.of(&named, &mut unasked), [Ok(Ipvs)]);
    }

    /// In the order of preference, and what serves stays.
    #[test]
    fn without_ipvs_the_packet_filter_takes_what_it_can_and_the_proxy_the_rest() {
        use BackendKind::{Nftables, Proxy};
        let directory = tempfile::tempdir().unwrap();
        let mut choices = Choices::new(StateFile::new(directory.path().join("backends.json")));
        let mut lacks = |_: &Service, kind| match kind {
            BackendKind::Ipvs => Err((Reach::All, "it is not there".to_owned())),
            Nftables | Proxy | BackendKind::Haproxy => Ok(()),
        };
        let services = level(&["turns", "least", "limited"], |service| {
            if &*service.name != "least" {
                service.scheduler = Scheduler::named("rr");
            }
            if &*service.name == "limited" {
                service.limits.connections = Some(10);
            }
        });
        let expected = [Ok(Nftables), Ok(Proxy), Ok(Proxy)];
        assert_eq!(choices.of(&services, &mut lacks), expected);
        assert_eq!(
            choices.notes[0].text,
            "turns is served by nftables: IPVS cannot: it is not there"
        );
        assert_eq!(choices.of(&services, &mut all), expected, "IPVS appears, and nothing moves");
    }

    #[test]
    fn a_path_past_which_some_clients_go_is_taken_only_where_there_is_no_other() {
        let mut web = Arc::unwrap_or_clone(level(&["web"], |_| {}).services[0].service.clone());
        let past = (Reach::Part, "answers go past it".to_owned());
        let mut lacks = |kind| match kind {
            BackendKind::Ipvs => Err(past.clone()),
            BackendKind::Nftables | BackendKind::Proxy | BackendKind::Haproxy => Ok(()),
        };
        let chosen = choose(&web, &mut lacks).unwrap();
        assert_eq!(chosen.kind, BackendKind::Proxy);
        web.scheduler = Scheduler::named("lblc");
        let chosen = choose(&web, &mut lacks).unwrap();
        assert_eq!(chosen.kind, BackendKind::Ipvs);
        let why = "web is served by IPVS: IPVS does not serve all clients: answers go past it; \
                   nftables has no scheduler `lblc`, use one of rr, wrr, sh, mh; the built-in proxy has \
                   no scheduler `lblc`";
        assert!(chosen.why.starts_with(why), "{}", chosen.why);
    }
}
