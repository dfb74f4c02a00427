//! The lab's scenarios, in one binary: they wait for elections most of their time, so many run side by
//! side. What measures time takes the whole machine (`Company::Alone`) and stands in `measured`.

mod backends;
mod bad_input;
mod baseline;
mod checkers;
mod contract;
mod daemon;
mod election;
mod examples;
mod fitness;
mod generated;
mod haproxy_files;
mod haproxy_seed;
mod hooks;
mod http;
mod ipvs;
mod limits;
mod measured;
mod nftables;
mod partial;
mod reasons;
mod seed;
mod services;
mod traffic;
