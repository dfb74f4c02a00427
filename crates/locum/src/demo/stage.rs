//! Everything together: machines, daemons and traffic, looked at ten times a second.

use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use locum_control::Record;
use locum_control::StatusDocument;
use locum_control::status::InstanceStatus;

use super::director::CONFIGURATION;
use super::director::Director;
use super::director::INSTANCE;
use super::network::Machine;
use super::network::MachineId;
use super::network::Network;
use super::network::VIRTUAL_ADDRESS;
use super::sandbox;
use super::series::Series;
use super::series::SeriesTally;
use super::traffic;
use super::view::DirectorScene;
use super::view::DirectorState;
use super::view::Scene;
use super::view::ServerScene;
use super::view::View;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// An answer older than this does not tell who answers now.
const RECENT: Duration = Duration::from_millis(200);

const DIRECTORS: [&str; 2] = ["lb1", "lb2"];
const SERVERS: [&str; 2] = ["srv1", "srv2"];

/// The show while it runs.
#[derive(Debug)]
pub struct Stage {
    network: Network,
    pub directors: Vec<Director>,
    /// What each director said at the last look.
    seen: Vec<Option<StatusDocument>>,
    /// How many role changes each director has told of.
    transitions: Vec<usize>,
    plugged: Vec<bool>,
    probes: Series,
    requests: Series,
    view: View,
    act: String,
    began: Instant,
    /// The same moment on the clock of the daemons' histories.
    began_ms: u64,
    /// Who answered the probes at the last look.
    answering: Option<usize>,
    /// Where the counters on the screen begin; `None` while there was no service yet.
    counted_from: Option<MeasuringStart>,
}

/// Where a measurement began.
#[derive(Clone, Copy, Debug)]
pub struct MeasuringStart {
    probes: usize,
    requests: usize,
}

/// What the client met between two moments.
#[derive(Clone, Debug)]
pub struct Measured {
    pub probes: SeriesTally,
    pub requests: SeriesTally,
}

impl Stage {
    /// Builds the network and starts servers and traffic; no daemon yet.
    ///
    /// # Errors
    /// What could not be made.
    pub fn build(plain: bool) -> Result<Self, String> {
        let began = Instant::now();
        let began_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let home = sandbox::home()?;
        let network = Network::build(&home)?;
        let config = home.join("locum.toml");
        std::fs::write(&config, CONFIGURATION)
            .map_err(|error| format!("cannot write {}: {error}", config.display()))?;
        for index in 0..SERVERS.len() {
            traffic::serve_pages(network.machine(MachineId::Server(index))?, number(index))?;
        }
        for index in 0..DIRECTORS.len() {
            traffic::answer_probes(network.machine(MachineId::Director(index))?, number(index))?;
        }
        let client = network.machine(MachineId::Client)?;
        Ok(Self {
            probes: traffic::probe(client)?,
            requests: traffic::request(client)?,
            directors: DIRECTORS.iter().map(|name| Director::new(name, &home, &config)).collect(),
            seen: DIRECTORS.iter().map(|_| None).collect(),
            transitions: DIRECTORS.iter().map(|_| 0).collect(),
            plugged: DIRECTORS.iter().map(|_| true).collect(),
            network,
            view: View::new(plain),
            act: String::new(),
            began,
            began_ms: u64::try_from(began_ms.as_millis()).unwrap_or(u64::MAX),
            answering: None,
            counted_from: None,
        })
    }

    /// Says something to the audience.
    pub fn say(&mut self, text: &str) {
        self.view.fact(self.began.elapsed(), text);
    }

    /// Announces what comes next.
    pub fn announce(&mut self, act: &str) {
        act.clone_into(&mut self.act);
        self.say(act);
    }

    /// Shows the last lines, below everything.
    pub fn close(&mut self, lines: &[String]) {
        self.look();
        self.view.close(lines);
    }

    /// Starts a director's daemon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, index: usize) -> Result<(), String> {
        let machine = self.network.machine(MachineId::Director(index))?;
        self.directors[index].start(machine)
    }

    /// A director's host dies: nothing reaches it any more, and nothing on it runs.
    ///
    /// # Errors
    /// When the cables cannot be pulled.
    pub fn host_dies(&mut self, index: usize) -> Result<(), String> {
        let machine = self.network.machine(MachineId::Director(index))?;
        self.network.unplug(machine)?;
        self.plugged[index] = false;
        self.directors[index].kill_all();
        Ok(())
    }

    /// The host is back, as after a boot: cables in, daemon started by the system.
    ///
    /// # Errors
    /// When it cannot be plugged in or started.
    pub fn host_returns(&mut self, index: usize) -> Result<(), String> {
        let machine = self.network.machine(MachineId::Director(index))?;
        self.network.plug(machine)?;
        self.plugged[index] = true;
        self.start(index)
    }

    /// Does the machine of this director have the virtual address, whatever its daemon says?
    ///
    /// # Errors
    /// When its addresses cannot be listed.
    pub fn holds_address(&self, index: usize) -> Result<bool, String> {
        self.machine(index)?.holds(VIRTUAL_ADDRESS)
    }

    /// The virtual router as a director sees it; `None` while its daemon does not answer.
    pub fn instance(&self, index: usize) -> Option<&InstanceStatus> {
        let status = self.seen.get(index)?.as_ref()?;
        status.instances.iter().find(|instance| instance.name == INSTANCE)
    }

    pub fn role(&self, index: usize) -> Option<&str> {
        Some(self.instance(index)?.role.as_str())
    }

    /// How often a director has changed its role so far.
    pub fn transitions(&self, index: usize) -> usize {
        self.transitions[index]
    }

    /// Are all real servers healthy?
    pub fn servers_healthy(&self) -> bool {
        (0..SERVERS.len()).all(|index| self.server_up(index))
    }

    /// Who answers the client's probes now.
    pub fn answering(&self) -> Option<usize> {
        let (by, age) = self.probes.last_answer()?;
        (age < RECENT).then_some(usize::from(by))
    }

    /// Does the client get pages now?
    pub fn pages_come(&self) -> bool {
        self.requests.last_answer().is_some_and(|(_, age)| age < RECENT)
    }

    /// From here on the counters on the screen count.
    pub fn count_from_now(&mut self) {
        self.counted_from = Some(self.mark());
    }

    /// Begins a measurement.
    pub fn mark(&self) -> MeasuringStart {
        MeasuringStart { probes: self.probes.mark(), requests: self.requests.mark() }
    }

    /// What the client met since `mark`; waits until the fate of the last request is known.
    pub fn measure(&mut self, mark: MeasuringStart) -> Measured {
        let end = self.mark();
        self.watch(self.requests.patience().max(self.probes.patience()) + LOOK);
        Measured {
            probes: self.probes.tally(mark.probes..end.probes),
            requests: self.requests.tally(mark.requests..end.requests),
        }
    }

    /// Looks on for a while.
    pub fn watch(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until(time, |_| Instant::now() >= end);
    }

    /// Looks on until something is the case, at most for `limit`; whether it is.
    pub fn until(&mut self, limit: Duration, mut is: impl FnMut(&mut Self) -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            self.look();
            if is(self) {
                return true;
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            std::thread::sleep(rest.min(LOOK));
        }
    }

    fn machine(&self, index: usize) -> Result<&Machine, String> {
        self.network.machine(MachineId::Director(index))
    }

    fn look(&mut self) {
        for (index, director) in self.directors.iter_mut().enumerate() {
            self.seen[index] = director.status();
            for entry in director.change() {
                if matches!(entry.record, Record::Transition { .. }) {
                    self.transitions[index] += 1;
                }
                let at = Duration::from_millis(entry.at_ms.saturating_sub(self.began_ms));
                self.view.fact(at, &format!("{}: {}", director.name(), entry.text));
            }
        }
        let answering = self.answering();
        if answering.is_some() && answering != self.answering {
            let name = answering.and_then(|index| DIRECTORS.get(index)).unwrap_or(&"a stranger");
            self.say(&format!("client: {VIRTUAL_ADDRESS} is answered by {name}"));
            self.answering = answering;
        }
        let scene = self.scene();
        self.view.draw(&scene);
    }

    fn scene(&self) -> Scene {
        let directors = DIRECTORS.iter().enumerate().map(|(index, name)| DirectorScene {
            name,
            state: self.state(index),
            answers: self.answering() == Some(index),
        });
        let pages = self.requests.answers_by(SERVERS.len());
        let servers = SERVERS
            .iter()
            .enumerate()
            .zip(pages)
            .map(|((index, name), pages)| ServerScene { name, up: self.server_up(index), pages });
        let counted = self.counted_from.unwrap_or_else(|| self.mark());
        Scene {
            at: self.began.elapsed(),
            act: self.act.clone(),
            directors: directors.collect(),
            servers: servers.collect(),
            probes: self.probes.tally(counted.probes..usize::MAX),
            requests: self.requests.tally(counted.requests..usize::MAX),
            silence: self.probes.last_answer().map_or(Duration::ZERO, |(_, age)| age),
        }
    }

    fn state(&self, index: usize) -> DirectorState {
        if !self.plugged[index] {
            return DirectorState::Unplugged;
        }
        let Some(instance) = self.instance(index) else { return DirectorState::Silent };
        DirectorState::Runs {
            role: instance.role.clone(),
            priority: instance.effective_priority,
            holds: instance.holds_addresses,
        }
    }

    /// Both directors check the servers, the one in charge and the one that may be next.
    fn server_up(&self, index: usize) -> bool {
        let services = self.seen.iter().flatten().flat_map(|status| &status.services);
        let mut servers = services.filter_map(|service| service.servers.get(index));
        servers.any(|server| server.up == Some(true))
    }
}

/// How a machine signs its answers.
fn number(index: usize) -> u8 {
    // INVARIANT: there are two of each kind.
    u8::try_from(index).expect("few machines")
}
