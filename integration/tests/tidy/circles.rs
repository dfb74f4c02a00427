//! Files of one crate that import each other cannot be read one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::report;
use crate::source::{built_code, crate_of, files, text};

/// `["crate", "a", "b"]` is the file of module `a::b`.
type Module = Vec<String>;

/// The modules of each crate that are files, with their code. The simulator is left out.
fn crates() -> BTreeMap<String, BTreeMap<Module, String>> {
    let mut crates: BTreeMap<String, BTreeMap<Module, String>> = BTreeMap::new();
    for path in files("crates", &["rs"]) {
        let holder = crate_of(&path);
        if holder == "sim" {
            continue;
        }
        if let Some(module) = module_of(&path) {
            let code = built_code(&text(&path));
            crates.entry(holder).or_default().entry(module).or_default().push_str(&code);
        }
    }
    crates
}

/// `None` for what is no part of a library or a program, and for tests.
fn module_of(path: &Path) -> Option<Module> {
    let parts: Vec<String> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let source = parts.iter().rposition(|part| part == "src")?;
    let mut module = vec!["crate".to_owned()];
    module.extend(parts[source + 1..].iter().map(|part| part.trim_end_matches(".rs").to_owned()));
    match module.last().map(String::as_str) {
        Some("tests") => return None,
        Some("mod") => drop(module.pop()),
        Some("lib" | "main") if module.len() == 2 => drop(module.pop()),
        Some(_) | None => {}
    }
    Some(module)
}

/// The paths that a file imports or writes out, braces taken apart.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some((before, import)) = next_import(rest) {
        written_out(before, &mut found);
        let end = import.find(';').unwrap_or(import.len());
        expand(&[], &import[..end], &mut found);
        rest = &import[end..];
    }
    written_out(rest, &mut found);
    found
}

/// What comes before the next `use`, and what follows that word.
fn next_import(code: &str) -> Option<(&str, &str)> {
    let is_import = |at: &usize| {
        let line = code[..*at].rsplit('\n').next().unwrap_or_default().trim();
        line.is_empty() || line.starts_with("pub")
    };
    let at = code.match_indices("use ").map(|(at, _)| at).find(is_import)?;
    Some((&code[..at], &code[at + 4..]))
}

fn expand(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, group.rsplit_once('}').map(|(group, _)| group)),
        None => (tree, None),
    };
    let path = path.split(" as ").next().unwrap_or_default();
    let segments = path.split("::").map(str::trim).filter(|one| !one.is_empty());
    let path: Vec<String> = prefix.iter().cloned().chain(segments.map(str::to_owned)).collect();
    let Some(group) = group else { return found.push(path) };
    let mut depth = 0;
    let parts = group.split(|one: char| {
        depth += i32::from(one == '{') - i32::from(one == '}');
        one == ',' && depth == 0
    });
    for part in parts.filter(|part| !part.trim().is_empty()) {
        expand(&path, part, found);
    }
}

/// Paths outside imports, as `crate::output::Seq` in a signature.
fn written_out(code: &str, found: &mut Vec<Vec<String>>) {
    let is_path = |one: char| one.is_alphanumeric() || one == '_' || one == ':';
    for word in code.split(|one| !is_path(one)) {
        let path: Vec<String> = word.split("::").map(str::to_owned).collect();
        let is_ours = matches!(path[0].as_str(), "crate" | "super" | "self");
        if is_ours && path.len() > 1 {
            found.push(path);
        }
    }
}

/// The file that `path`, written in `module`, leads to; `None` for other crates.
fn target(modules: &BTreeMap<Module, String>, module: &Module, path: &[String]) -> Option<Module> {
    let mut at = module.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => at.truncate(1),
        "self" | "super" => {}
        child => {
            let child: Module = module.iter().cloned().chain([child.to_owned()]).collect();
            modules.get(&child)?;
        }
    }
    while let [first, others @ ..] = rest {
        match first.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            child => {
                at.push(child.to_owned());
                if !modules.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
        }
        rest = others;
    }
    Some(at)
}

/// The modules that lead to themselves by way of others.
fn circular(modules: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let imports: BTreeMap<&Module, BTreeSet<Module>> = modules
        .iter()
        .map(|(module, code)| {
            let paths = paths(code);
            let targets = paths.iter().filter_map(|path| target(modules, module, path));
            (module, targets.filter(|to| to != module).collect())
        })
        .collect();
    let leads_to_itself = |module: &&Module| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Module> = imports[*module].iter().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(imports.get(next).into_iter().flatten());
            }
        }
        seen.contains(*module)
    };
    modules.keys().filter(leads_to_itself).cloned().collect()
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let crates = crates();
    assert!(crates.len() > 9, "only {} crates are found", crates.len());
    let mut found = BTreeSet::new();
    for (name, modules) in &crates {
        let named = |mut module: Module| {
            module[0].clone_from(name);
            module.join("::")
        };
        found.extend(circular(modules).into_iter().map(named));
    }
    let found = found.iter().map(|one| format!("{one} is part of a circle of imports"));
    report(&found.collect::<Vec<_>>());
}

#[test]
fn circles_are_found_through_groups_parents_and_written_paths() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let modules: BTreeMap<Module, String> = [
        ("crate", "pub use a::A; mod a; use std::fmt;"),
        ("crate::a", "use crate::{b::{c::C as D}, e};"),
        ("crate::b", "use crate::e::E;"),
        ("crate::b::c", "fn f() -> super::super::a::A"),
        ("crate::e", "use std::a::A;"),
    ]
    .map(|(path, code)| (module(path), code.to_owned()))
    .into();
    let found: Vec<String> = circular(&modules).iter().map(|module| module.join("::")).collect();
    assert_eq!(found, ["crate::a", "crate::b::c"]);
}
