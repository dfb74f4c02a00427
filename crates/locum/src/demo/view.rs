//! How the show looks: a picture redrawn in place on a terminal, one line per fact elsewhere.
//!
//! No state of the terminal is changed that someone would have to restore: an interrupted show
//! leaves a picture behind and nothing else.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;

use super::series::SeriesTally;

/// Columns of the picture: those of the smallest terminal in use.
const COLUMNS: usize = 79;

/// Facts kept in the picture; with everything else they fit into 24 lines.
const FACTS: usize = 9;

/// A silence shorter than this is one of a probe under way.
const SILENCE: Duration = Duration::from_millis(50);

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const BLUE: &str = "\x1b[34m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const NORMAL: &str = "\x1b[0m";

/// Shows facts and, on a terminal, the scene.
#[derive(Debug)]
pub struct View {
    shape: ViewShape,
    facts: VecDeque<String>,
    /// Lines of the picture above the cursor.
    drawn: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ViewShape {
    Lines,
    Picture { colour: bool },
}

/// Everything the audience sees at one moment.
#[derive(Debug)]
pub struct Scene {
    /// Since the show began.
    pub at: Duration,
    pub act: String,
    pub directors: Vec<DirectorScene>,
    pub servers: Vec<ServerScene>,
    pub probes: SeriesTally,
    pub requests: SeriesTally,
    /// Since the last answered probe was sent.
    pub silence: Duration,
}

#[derive(Debug)]
pub struct DirectorScene {
    pub name: &'static str,
    pub state: DirectorState,
    /// The client's probes are answered by it.
    pub answers: bool,
}

/// What a director is to be seen as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DirectorState {
    /// Its role, priority and whether it wants the virtual address on its interface.
    Runs { role: String, priority: u8, holds: bool },
    /// No daemon answers.
    Silent,
    /// Its cables are pulled.
    Unplugged,
}

#[derive(Debug)]
pub struct ServerScene {
    pub name: &'static str,
    /// As a director sees it.
    pub up: bool,
    pub pages: usize,
}

impl View {
    pub fn new(plain: bool) -> Self {
        let shape = if plain || !std::io::stdout().is_terminal() {
            ViewShape::Lines
        } else {
            ViewShape::Picture { colour: std::env::var_os("NO_COLOR").is_none() }
        };
        Self { shape, facts: VecDeque::new(), drawn: 0 }
    }

    /// Something happened.
    pub fn fact(&mut self, at: Duration, text: &str) {
        for line in text.lines() {
            let line = format!("{:8.3} s  {line}", at.as_secs_f64());
            match self.shape {
                ViewShape::Lines => print(&format!("{line}\n")),
                ViewShape::Picture { .. } => {
                    self.facts.push_back(line);
                    if self.facts.len() > FACTS {
                        self.facts.pop_front();
                    }
                }
            }
        }
    }

    /// Shows the scene, where scenes are shown.
    pub fn draw(&mut self, scene: &Scene) {
        let ViewShape::Picture { colour } = self.shape else { return };
        let mut lines = picture(scene);
        lines.push((String::new(), ""));
        lines.extend(self.facts.iter().map(|fact| (fact.clone(), style(fact))));
        let mut text = String::new();
        if self.drawn > 0 {
            text += &format!("\x1b[{}F", self.drawn);
        }
        for (line, style) in &lines {
            let line: String = line.chars().take(COLUMNS).collect();
            text += "\x1b[2K";
            text += &if colour { format!("{style}{line}{NORMAL}\n") } else { line + "\n" };
        }
        self.drawn = lines.len();
        print(&text);
    }

    /// Prints below everything.
    pub fn close(&mut self, lines: &[String]) {
        self.drawn = 0;
        print("\n");
        for line in lines {
            print(&format!("{line}\n"));
        }
    }
}

/// The lines of the picture above the facts, each with its style.
fn picture(scene: &Scene) -> Vec<(String, &'static str)> {
    let title = "locum demo: two directors, one virtual address, two real servers";
    let mut lines = vec![
        (format!("{title}{:>13.1} s", scene.at.as_secs_f64()), BOLD),
        (scene.act.clone(), BOLD),
        (String::new(), ""),
    ];
    lines.extend(scene.directors.iter().map(director));
    for server in &scene.servers {
        let health = if server.up { "healthy" } else { "not healthy" };
        let line = format!("    {}  {health:<11}  {} pages served", server.name, server.pages);
        lines.push((line, if server.up { "" } else { DIM }));
    }
    lines.push((String::new(), ""));
    let silent = scene.silence > SILENCE;
    let mut probes = format!("    probes   {}", counts(&scene.probes));
    if silent {
        probes += &format!("   silence for {:.1} s", scene.silence.as_secs_f64());
    }
    lines.push((probes, if silent { RED } else { "" }));
    lines.push((format!("    requests {}", counts(&scene.requests)), ""));
    lines
}

fn director(director: &DirectorScene) -> (String, &'static str) {
    let mark = if director.answers { "►" } else { " " };
    let name = director.name;
    let (text, style) = match &director.state {
        DirectorState::Runs { role, priority, holds } => {
            let style = match role.as_str() {
                "master" | "resigning" => GREEN,
                _ => BLUE,
            };
            let holds = if *holds { "holds the virtual address" } else { "" };
            (format!("{:<11}  priority {priority:<3}  {holds}", role.to_uppercase()), style)
        }
        DirectorState::Silent => ("no daemon".to_owned(), RED),
        DirectorState::Unplugged => ("dead".to_owned(), RED),
    };
    (format!("  {mark} {name}   {text}"), style)
}

/// Verdicts stand out among the facts.
fn style(fact: &str) -> &'static str {
    if fact.contains("promise kept: ") {
        GREEN
    } else if fact.contains("promise BROKEN: ") {
        RED
    } else {
        DIM
    }
}

fn counts(tally: &SeriesTally) -> String {
    format!("{:>7} sent  {:>6} lost   gap {}", tally.sent, tally.lost, gap(tally))
}

/// The longest gap of a tally for a person; one lost request has no length.
pub fn gap(tally: &SeriesTally) -> String {
    if tally.lost == 0 {
        return "none".to_owned();
    }
    format!("{:.3} s", tally.longest_gap.as_secs_f64())
}

/// A reader that has gone away does not end the show: its exit status still tells.
fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        let tally = SeriesTally { sent: 123_456, lost: 3_107, ..SeriesTally::default() };
        let runs = DirectorState::Runs { role: "resigning".to_owned(), priority: 150, holds: true };
        Scene {
            at: Duration::from_millis(29_187),
            act: "3 of 6: the host of lb2 dies: cables pulled, every process killed".to_owned(),
            directors: [runs, DirectorState::Unplugged]
                .map(|state| DirectorScene { name: "lb1", state, answers: true })
                .into(),
            servers: ["srv1", "srv2"].map(|name| ServerScene { name, up: true, pages: 999 }).into(),
            probes: tally.clone(),
            requests: tally,
            silence: Duration::from_millis(3_107),
        }
    }

    #[test]
    fn the_picture_fits_into_the_smallest_terminal() {
        let lines = picture(&scene());
        for (line, _) in &lines {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        // An empty line, the facts, and the cursor's line.
        assert!(lines.len() + 1 + FACTS < 24);
    }

    #[test]
    fn a_silence_is_shown_while_it_lasts() {
        let shows = |scene: &Scene| picture(scene).iter().any(|(line, _)| line.contains("silence"));
        let mut scene = scene();
        assert!(shows(&scene));
        scene.silence = Duration::from_millis(2);
        assert!(!shows(&scene));
    }
}
