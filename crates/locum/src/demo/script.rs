//! What happens, what is promised, and what was measured.

use std::time::Duration;

use locum_control::Request;

use super::director::ADVERT_INTERVAL;
use super::director::INSTANCE;
use super::stage::Measured;
use super::stage::Stage;
use super::view::gap;

/// Two daemons elect a master after three silent intervals and the skew; twice that is a failure.
const ELECTION_LIMIT: Duration = Duration::from_secs(9);

/// A planned handover takes milliseconds, the end of a daemon with its proxy not much more.
const HANDOVER_LIMIT: Duration = Duration::from_secs(5);

/// A daemon that stops lets connections end for as long as the configuration says, then hooks.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Traffic before and after each event, so that what is measured begins and ends in calm.
const QUIET: Duration = Duration::from_millis(1000);

/// How long a daemon is away that is started again: what a supervisor takes.
const RESTART_DELAY: Duration = Duration::from_millis(400);

/// What a busy machine may add to a silence by not running a process in time.
const SCHEDULING_MARGIN: Duration = Duration::from_millis(500);

/// The kernel counts the lease of an address in whole seconds.
const LEASE_LIMIT: Duration = Duration::from_secs(2);

/// Log lines of each director that are shown when a promise was broken.
const LAST_WORDS: usize = 30;

/// Connections that a move of the address may break: a proxied one ends on the director it began
/// on, and no two requests are under way at a time.
const UNDER_WAY: usize = 1;

const LB1: usize = 0;
const LB2: usize = 1;

/// One promise, and what came of it.
#[derive(Debug)]
struct Promise {
    promised: String,
    measured: String,
    kept: bool,
}

impl Promise {
    fn verdict(&self) -> String {
        let Self { promised, measured, kept } = self;
        if *kept {
            format!("promise kept: {promised}: {measured}")
        } else {
            format!("promise BROKEN: promised {promised}, measured {measured}")
        }
    }
}

/// How an act is played.
type Play = fn(&mut Stage) -> Result<Act, String>;

/// One act of the show.
#[derive(Debug)]
struct Act {
    title: &'static str,
    measured: Option<Measured>,
    promises: Vec<Promise>,
}

impl Act {
    fn new(title: &'static str) -> Self {
        Self { title, measured: None, promises: Vec::new() }
    }

    fn promise(&mut self, promised: &str, measured: impl Into<String>, kept: bool) {
        self.promises.push(Promise {
            promised: promised.to_owned(),
            measured: measured.into(),
            kept,
        });
    }

    /// The client's datagrams have noticed nothing, and of its connections at most `broken` broke.
    fn promise_no_loss(&mut self, measured: Measured, broken: usize) {
        let (probes, requests) = (&measured.probes, &measured.requests);
        let lost = format!("{} of {}", probes.lost, probes.sent);
        self.promise("no probe lost", lost, probes.sent > 0 && probes.lost == 0);
        let promised = match broken {
            0 => "no request lost",
            _ => "no request lost but one under way",
        };
        let lost = format!("{} of {}", requests.lost, requests.sent);
        self.promise(promised, lost, requests.sent > 0 && requests.lost <= broken);
        self.measured = Some(measured);
    }
}

/// Plays all acts; the exit status is 0 when every promise was kept.
///
/// # Errors
/// When the stage cannot be built or a command to it fails.
pub fn play(plain: bool) -> Result<u8, String> {
    let mut stage = Stage::build(plain)?;
    stage.say(&format!(
        "client: a probe every millisecond and a request every 20 ms to 192.0.2.10; \
         advert interval {} s, service through the built-in proxy",
        ADVERT_INTERVAL.as_secs()
    ));
    let acts: [Play; 6] = [election, switchover, host_death, host_return, daemon_crash, clean_stop];
    let mut played = Vec::new();
    let mut kept = true;
    for act in acts {
        let act = act(&mut stage)?;
        for promise in &act.promises {
            stage.say(&promise.verdict());
        }
        kept &= act.promises.iter().all(|promise| promise.kept);
        played.push(act);
        if !kept {
            // What follows starts from a state that is not there.
            break;
        }
    }
    let mut lines = table(&played);
    if kept {
        lines.push("every promise was kept".to_owned());
    } else {
        lines.push("a promise was broken; the daemons' last words:".to_owned());
        for director in &stage.directors {
            let words = director.last_words(LAST_WORDS);
            lines.extend(words.iter().map(|line| format!("{}: {line}", director.name())));
        }
    }
    stage.close(&lines);
    Ok(u8::from(!kept))
}

fn election(stage: &mut Stage) -> Result<Act, String> {
    let mut act = Act::new("both directors start");
    stage.announce("1 of 6: lb1 (priority 150) and lb2 (priority 100) start");
    stage.start(LB1)?;
    stage.start(LB2)?;
    let elected = stage.until(ELECTION_LIMIT, |stage| {
        leads(stage, LB1, Some(LB2)) && stage.pages_come() && stage.servers_healthy()
    });
    act.promise("lb1 master, lb2 backup, servers healthy", roles(stage), elected);
    stage.count_from_now();
    Ok(act)
}

fn switchover(stage: &mut Stage) -> Result<Act, String> {
    let mut act = Act::new("planned handover to lb2");
    let mark = stage.mark();
    stage.watch(QUIET);
    stage.announce("2 of 6: planned handover: `locum switchover web` on lb1");
    let instance = Some(INSTANCE.to_owned());
    let switchover = Request::Switchover { instance, to: None, dry_run: false, force: false };
    stage.directors[LB1].command(&switchover)?;
    let moved = stage.until(HANDOVER_LIMIT, |stage| leads(stage, LB2, Some(LB1)));
    act.promise("lb2 master, lb1 backup", roles(stage), moved);
    stage.watch(QUIET);
    act.promise_no_loss(stage.measure(mark), UNDER_WAY);
    Ok(act)
}

fn host_death(stage: &mut Stage) -> Result<Act, String> {
    let mut act = Act::new("host of the master dies");
    let limit = longest_silence(stage, LB1) + SCHEDULING_MARGIN;
    let mark = stage.mark();
    stage.watch(QUIET);
    stage.announce("3 of 6: the host of lb2 dies: cables pulled, every process killed");
    stage.host_dies(LB2)?;
    let taken_over = stage.until(ELECTION_LIMIT, |stage| leads(stage, LB1, None));
    act.promise("lb1 master", roles(stage), taken_over);
    let mut holds = true;
    let withdrawn = stage.until(LEASE_LIMIT, |stage| {
        holds = stage.holds_address(LB2).unwrap_or(true);
        !holds
    });
    let measured = if holds { "still there" } else { "withdrawn" };
    act.promise("the dead host's kernel withdraws the address", measured, withdrawn);
    stage.watch(QUIET);
    let measured = stage.measure(mark);
    let silence = measured.probes.longest_gap;
    act.promise(
        &format!(
            "silence at most {:.3} s (3 intervals + skew + {} ms)",
            limit.as_secs_f64(),
            SCHEDULING_MARGIN.as_millis()
        ),
        gap(&measured.probes),
        silence <= limit,
    );
    act.measured = Some(measured);
    Ok(act)
}

fn host_return(stage: &mut Stage) -> Result<Act, String> {
    let mut act = Act::new("the host comes back");
    let mark = stage.mark();
    stage.watch(QUIET);
    stage.announce("4 of 6: lb2 comes back");
    stage.host_returns(LB2)?;
    let joined = stage.until(HANDOVER_LIMIT, |stage| leads(stage, LB1, Some(LB2)));
    stage.watch(QUIET);
    act.promise("lb1 stays master, lb2 is backup", roles(stage), joined);
    act.promise_no_loss(stage.measure(mark), 0);
    Ok(act)
}

fn daemon_crash(stage: &mut Stage) -> Result<Act, String> {
    let mut act = Act::new("daemon of the master crashes");
    let mark = stage.mark();
    stage.watch(QUIET);
    let before = stage.transitions(LB2);
    stage.announce("5 of 6: kill -9 of the daemon of lb1, started again within a second");
    stage.directors[LB1].kill();
    stage.watch(RESTART_DELAY);
    stage.start(LB1)?;
    let resumed = stage.until(HANDOVER_LIMIT, |stage| leads(stage, LB1, Some(LB2)));
    // Long enough for the backup to take over, had it missed the master.
    let patience = longest_silence(stage, LB2);
    stage.watch(patience);
    let unmoved = stage.role(LB2) == Some("backup") && stage.transitions(LB2) == before;
    // It still is; looked for once more, as no probe is fresh when the machine has just stood still.
    let leads = stage.until(HANDOVER_LIMIT, |stage| leads(stage, LB1, Some(LB2)));
    act.promise("lb1 goes on as master", roles(stage), resumed && leads);
    let measured = if unmoved { "still backup" } else { "its role changed" };
    act.promise("lb2 notices nothing", measured, unmoved);
    act.promise_no_loss(stage.measure(mark), 0);
    Ok(act)
}

fn clean_stop(stage: &mut Stage) -> Result<Act, String> {
    let mut act = Act::new("lb1 stops in order");
    let mark = stage.mark();
    stage.watch(QUIET);
    stage.announce("6 of 6: `locum stop` on lb1, then on lb2");
    let ended = stop(stage, LB1)?;
    act.promise("the daemon of lb1 ends with status 0", ended.clone(), ended == "status 0");
    let moved = stage.until(HANDOVER_LIMIT, |stage| leads(stage, LB2, None));
    act.promise("lb2 master", roles(stage), moved);
    stage.watch(QUIET);
    act.promise_no_loss(stage.measure(mark), UNDER_WAY);
    let ended = stop(stage, LB2)?;
    act.promise("the daemon of lb2 ends with status 0", ended.clone(), ended == "status 0");
    let left = [LB1, LB2].map(|index| stage.holds_address(index).unwrap_or(true));
    let clean = left == [false, false];
    let measured = if clean { "none" } else { "the virtual address is still there" };
    act.promise("no address left behind", measured, clean);
    Ok(act)
}

/// Tells a daemon to stop and waits for its end; how it ended.
fn stop(stage: &mut Stage, index: usize) -> Result<String, String> {
    stage.directors[index].command(&Request::Stop)?;
    let mut status = None;
    stage.until(STOP_LIMIT, |stage| {
        status = stage.directors[index].ended();
        status.is_some()
    });
    Ok(match status {
        Some(status) => status.code().map_or(status.to_string(), |code| format!("status {code}")),
        None => format!("still running after {} s", STOP_LIMIT.as_secs()),
    })
}

/// `master` is master and answers the client; `backup`, where there shall be one, is backup.
fn leads(stage: &Stage, master: usize, backup: Option<usize>) -> bool {
    stage.role(master) == Some("master")
        && stage.answering() == Some(master)
        && backup.is_none_or(|backup| stage.role(backup) == Some("backup"))
}

/// The time after which a director takes over from a silent master: three intervals and its skew
/// (RFC 9568 §6.1).
fn longest_silence(stage: &Stage, index: usize) -> Duration {
    let priority = stage.instance(index).map_or(1, |instance| instance.effective_priority);
    ADVERT_INTERVAL * 3 + ADVERT_INTERVAL * (256 - u32::from(priority)) / 256
}

fn roles(stage: &Stage) -> String {
    let role = |index| stage.role(index).unwrap_or("no daemon");
    format!("lb1 {}, lb2 {}", role(LB1), role(LB2))
}

/// The measured figures, act by act.
fn table(acts: &[Act]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<28}  {:>6} {:>5}  {:>8}  {:>8} {:>5}  promises",
        "", "probes", "lost", "gap", "requests", "lost"
    )];
    for act in acts {
        let verdict =
            if act.promises.iter().all(|promise| promise.kept) { "kept" } else { "BROKEN" };
        let figures = match &act.measured {
            Some(Measured { probes, requests }) => format!(
                "{:>6} {:>5}  {:>8}  {:>8} {:>5}",
                probes.sent,
                probes.lost,
                gap(probes),
                requests.sent,
                requests.lost
            ),
            None => format!("{:>6} {:>5}  {:>8}  {:>8} {:>5}", "", "", "", "", ""),
        };
        lines.push(format!("{:<28}  {figures}  {verdict}", act.title));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::series::SeriesTally;

    fn act(lost: usize, broken: usize) -> Act {
        let tally = SeriesTally { sent: 1000, lost, ..SeriesTally::default() };
        let mut act = Act::new("an act");
        act.promise_no_loss(Measured { probes: tally.clone(), requests: tally }, broken);
        act
    }

    #[test]
    fn a_single_lost_probe_breaks_the_promise_of_none() {
        assert!(act(0, 0).promises.iter().all(|promise| promise.kept));
        assert!(act(1, 0).promises.iter().all(|promise| !promise.kept));
    }

    #[test]
    fn the_request_under_way_may_be_lost_and_no_second_one() {
        let requests = |lost| act(lost, UNDER_WAY).promises[1].kept;
        assert_eq!([0, 1, 2].map(requests), [true, true, false]);
    }

    #[test]
    fn nothing_measured_is_nothing_promised() {
        let mut act = Act::new("an act");
        let nothing = Measured { probes: SeriesTally::default(), requests: SeriesTally::default() };
        act.promise_no_loss(nothing, UNDER_WAY);
        assert!(act.promises.iter().all(|promise| !promise.kept));
    }

    #[test]
    fn the_closing_table_names_the_broken_act() {
        let lines = table(&[act(0, 0), act(7, 0)]);
        assert!(lines[1].ends_with("kept"), "{lines:?}");
        assert!(lines[2].ends_with("BROKEN") && lines[2].contains(" 7 "), "{lines:?}");
    }
}
