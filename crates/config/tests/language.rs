//! The language of a keepalived.conf before its keywords: includes, conditions, parameters,
//! generators, quotes, comments and braces; and that whatever a file asks for, a load ends.

// How long a load takes is a promise; only the library itself knows no clock.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use locum_config::{Context, Loaded, MemorySource, load};
use locum_plan::Plan;

const INSTANCE: &str =
    "vrrp_instance V {\n interface eth0\n virtual_router_id 51\n virtual_ipaddress {\n";

fn read_as(context: &Context<'_>, source: &MemorySource) -> Loaded {
    load(source, "/etc/k/k.conf", context)
}

fn read(text: &str) -> Loaded {
    read_as(&Context::host("lb1.example.net"), &MemorySource::new().with("/etc/k/k.conf", text))
}

fn addresses(plan: &Plan) -> Vec<String> {
    plan.instances[0].addresses.iter().map(|one| one.address.to_string()).collect()
}

/// The addresses of an instance with these lines in its `virtual_ipaddress`, last octets alone.
fn octets(before: &str, lines: &str) -> Vec<String> {
    let loaded = read(&format!("{before}{INSTANCE}{lines}\n }}\n}}\n"));
    let plan = loaded.plan.unwrap_or_else(|| panic!("{lines}\n{}", loaded.diagnostics));
    addresses(&plan).iter().map(|text| text.replace("192.0.2.", "")).collect()
}

#[test]
fn a_condition_keeps_the_lines_of_this_node() {
    let lines = "@lb1 192.0.2.1\n@lb2 192.0.2.2\n@^lb1 192.0.2.3\n@^lb2 192.0.2.4";
    assert_eq!(octets("", lines), ["1", "4"]);
    let text = format!("{INSTANCE}{lines}\n }}\n}}\n");
    let context = Context { config_id: Some("lb2"), ..Context::host("lb1") };
    let loaded = read_as(&context, &MemorySource::new().with("/etc/k/k.conf", text));
    assert_eq!(addresses(&loaded.plan.expect("a plan")), ["192.0.2.2", "192.0.2.3"]);
}

#[test]
fn a_parameter_has_the_value_that_it_has_where_it_is_used() {
    assert_eq!(octets("$A=192.0.2.$B\n$B=1\n$B=2\n", "$A\n${A}0/24"), ["2", "20"]);
    assert_eq!(octets("", "$A=192.0.2.7\n$A\n"), ["7"]);
    // Without braces it ends at white space, as in keepalived.
    assert_eq!(octets("$A=192.0.2\n", "${A}.7\n$A.8\n"), ["7"]);
}

#[test]
fn a_value_of_several_lines_may_define_condition_and_generate() {
    let before = "$ONE= \\\n 192.0.2.$N # the first \\\n @lb1 192.0.2.1$N \\\n @lb2 192.0.2.9\n\
                  $ALL= \\\n $N=2 \\\n $ONE \\\n ~SEQ(N,3,4) $ONE\n";
    assert_eq!(octets(before, "$ALL"), ["2", "12", "3", "13", "4", "14"]);
}

#[test]
fn a_template_makes_instances() {
    let text = "$VI=vrrp_instance V$N { \\\n interface eth0 \\\n virtual_router_id $N \\\n \
                virtual_ipaddress { 192.0.2.$N } \\\n}\n$N=1\n$VI\n$N=2\n$VI\n";
    let plan = read(text).plan.expect("a plan");
    let names: Vec<&str> = plan.instances.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["V1", "V2"]);
}

#[test]
fn generators_repeat_the_rest_of_their_line() {
    assert_eq!(octets("", "~SEQ(N,1,3) 192.0.2.$N"), ["1", "2", "3"]);
    assert_eq!(octets("$MAX=5\n", "~SEQ(N, 1, 2, $MAX) 192.0.2.$N"), ["1", "3", "5"]);
    assert_eq!(octets("", "~SEQ(A,1,2)~SEQ(B,1,2) 192.0.2.${A}$B"), ["11", "12", "21", "22"]);
    assert_eq!(octets("", "~LST({A,B},{1,2},{3,4}) 192.0.2.${A}$B"), ["12", "34"]);
    let v6 = format!("{INSTANCE}fe80::1\n~SEQx(N,0x9,0xb) fe80::1$N\n }}\n}}\n");
    let plan = read(&v6).plan.expect("a plan");
    assert_eq!(addresses(&plan), ["fe80::1", "fe80::19", "fe80::1a", "fe80::1b"]);
    let loaded = read(&format!("{INSTANCE}192.0.2.1\n~SEQ(N) 192.0.2.$N\n }}\n}}\n"));
    assert_eq!(loaded.diagnostics.iter().next().map(|one| one.code), Some("bad-generator"));
}

#[test]
fn built_in_parameters_come_from_the_context() {
    let text = format!(
        "{INSTANCE}192.0.2.1\n }}\n priority ${{_RANDOM 100 109}}\n \
         notify \"/bin/x ${{_PWD}} ${{_INSTANCE}} ${{_ENV HOME}} ${{_ENV NONE}} a${{_HASH}}b ${{_BANG}}\"\n}}\n"
    );
    let environment = [("HOME".to_owned(), "/root".to_owned())];
    let source = MemorySource::new().with("/etc/k/k.conf", text);
    let plan = |seed| {
        let context = Context { environment: &environment, seed, ..Context::host("lb1") };
        read_as(&context, &source).plan.expect("a plan")
    };
    let hook = format!("{:?}", plan(1).instances[0].hooks.any[0].line);
    assert_eq!(
        hook,
        "Argv([\"/bin/x\", \"/etc/k\", \"lb1\", \"/root\", \"${_ENV\", \"NONE}\", \"a#b\", \"!\"])"
    );
    let priority = |seed| plan(seed).instances[0].router.priority.0;
    assert_eq!(priority(1), priority(1));
    let all: std::collections::BTreeSet<u8> = (0..200).map(priority).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), (100..=109).collect::<Vec<u8>>());
    let seeded = |seed| {
        let loaded =
            read(&format!("random_seed {seed}\n{INSTANCE}192.0.2.${{_RANDOM 1 250}}\n }}\n}}\n"));
        addresses(&loaded.plan.expect("a plan"))
    };
    assert_eq!(seeded(7), seeded(7));
    assert_ne!(seeded(7), seeded(8));
}

#[test]
fn an_include_is_relative_to_its_file_and_may_be_a_pattern() {
    let source = MemorySource::new()
        .with("/etc/k/k.conf", format!("include d/*.inc\n{INSTANCE}include d/e/vips\n }}\n}}\n"))
        .with("/etc/k/d/a.inc", "$A=1\n")
        .with("/etc/k/d/b.inc", "$B=${A}2\n")
        .with("/etc/k/d/e/vips", "192.0.2.$B\ninclude more\n")
        .with("/etc/k/d/e/more", "192.0.2.13");
    let loaded = read_as(&Context::host("lb1"), &source);
    assert_eq!(addresses(&loaded.plan.expect("a plan")), ["192.0.2.12", "192.0.2.13"]);
}

#[test]
fn comments_quotes_and_braces_stand_anywhere() {
    let text = "vrrp_instance \"V\"# x { !\n{ interface eth0!x\n virtual_router_id '51' # {\n\n \
                virtual_ipaddress\n\n{ \"192.0.2.1\"/24 ! }\n 192.0.2.2 } }\n";
    let plan = read(text).plan.expect("a plan");
    assert_eq!(addresses(&plan), ["192.0.2.1", "192.0.2.2"]);
}

/// A load of it ends with this error, in time.
fn ends(code: &str, source: &MemorySource) {
    let begin = Instant::now();
    let loaded = read_as(&Context::host("lb1"), source);
    assert!(loaded.plan.is_none());
    let found = loaded.diagnostics.iter().any(|one| one.code == code);
    assert!(found, "no {code} in\n{}", loaded.diagnostics);
    let took = begin.elapsed();
    // On a machine that is busy with other tests.
    assert!(took < Duration::from_secs(60), "{code} took {took:?}");
}

#[test]
fn whatever_a_file_asks_for_a_load_ends() {
    let file = |text: String| {
        MemorySource::new().with("/etc/k/k.conf", format!("global_defs {{\n}}\n{text}"))
    };
    ends("include-depth", &file("include k.conf\n".repeat(100)));
    ends(
        "include-depth",
        &file("include a\ninclude a\n".to_owned()).with("/etc/k/a", "include k.conf\n".repeat(9)),
    );
    let mut tree = file("include f0\n".to_owned());
    for level in 0..12 {
        let next = level + 1;
        tree = tree.with(format!("/etc/k/f{level}"), format!("include f{next}\n").repeat(4));
    }
    ends("include-limit", &tree.with("/etc/k/f12", ""));
    ends("too-much", &file("~SEQ(A,1,1000000000) x y z\n".to_owned()));
    ends("too-much", &file("~SEQ(A,1,1000000000)\n".to_owned()));
    ends(
        "too-much",
        &file("~SEQ(A,1,99999)~SEQ(B,1,99999) ~SEQ(C,1,99999) ${A}${B}${C}\n".to_owned()),
    );
    ends("parameter-expansion", &file("$A= \\\n $A \\\n $A \\\n $A \\\n $A\n$A\n".to_owned()));
    ends("parameter-expansion", &file("$A=$A $A\n$A\n".to_owned()));
    ends("line-too-long", &file("x ".repeat(3 << 20)));
    ends("too-much", &file("x\n".repeat(4 << 20)));
    ends("unbalanced-brace", &file(format!("{}a {{\n", "x\n".repeat(1_500_000))));
    ends("unreadable", &file("x\0y\n".to_owned()));
    ends("unreadable", &file("x".repeat(100 << 20)));
    ends("unbalanced-brace", &file("a {\n".repeat(200_000)));
    ends("unclosed-quote", &file("a \"\n".repeat(200_000)));
}

/// As in keepalived's manual: 254 VRIDs on each of 256 links.
#[test]
fn sixty_five_thousand_generated_instances_are_a_plan() {
    let mut text = String::from("$VI= \\\n");
    for line in [
        "vrrp_instance vrrp4.${IF}.${NUM}.${ID} {",
        " interface bond${IF}.${NUM}",
        " virtual_router_id ${ID}",
        " state BACKUP",
        " priority 200",
        " version 3",
        " advert_int 1",
        " garp_master_refresh 60",
        " virtual_ipaddress {",
        "  10.${IF}.${NUM}.${ID}/16",
        " }",
        "}",
    ] {
        writeln!(text, "{line} \\").expect("a String");
    }
    text += "\n~SEQ(IF,0,7) ~SEQ(NUM,0,31) ~SEQ(ID,1,254) $VI\n";
    let begin = Instant::now();
    let loaded = read(&text);
    let took = begin.elapsed();
    let plan = loaded.plan.unwrap_or_else(|| panic!("{}", loaded.diagnostics));
    assert_eq!(plan.instances.len(), 65_024);
    assert_eq!(&*plan.instances[65_023].name, "vrrp4.7.31.254");
    println!("65,024 instances in {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}
