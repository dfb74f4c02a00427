//! What two proxies that serve the same services have done and have, as if they were one.

use crate::protocol::{ProxyServerStatus, ProxyServiceState, ProxyServiceStatus, ProxyStatus};

/// Adds what another proxy has, and had, to the answer of this one. An answer that is not `whole` names
/// some services, and has no others afterwards.
pub fn add(own: &mut ProxyStatus, other: &ProxyStatus, whole: bool) {
    own.active += other.active;
    own.accept_pauses += other.accept_pauses;
    for service in &other.services {
        match own.services.iter_mut().find(|one| one.name == service.name) {
            Some(one) => add_service(one, service),
            None if whole && service.active > 0 => own
                .services
                .push(ProxyServiceStatus { state: ProxyServiceState::Leaving, ..service.clone() }),
            None => {}
        }
    }
}

fn add_service(own: &mut ProxyServiceStatus, other: &ProxyServiceStatus) {
    own.active += other.active;
    own.accepted += other.accepted;
    own.refused += other.refused;
    own.bytes_in += other.bytes_in;
    own.bytes_out += other.bytes_out;
    own.crowded += other.crowded;
    own.headless += other.headless;
    own.loops += other.loops;
    own.loop_through = own.loop_through.or(other.loop_through);
    own.shortages += other.shortages;
    own.shortage = own.shortage.take().or_else(|| other.shortage.clone());
    own.timed_out += other.timed_out;
    own.queue.waiting += other.queue.waiting;
    own.queue.longest_ms = own.queue.longest_ms.max(other.queue.longest_ms);
    own.queue.timed_out += other.queue.timed_out;
    own.queue.left += other.queue.left;
    own.queue.turned_away += other.queue.turned_away;
    for server in &other.servers {
        match own.servers.iter_mut().find(|one| one.address == server.address) {
            Some(one) => add_server(one, server),
            None if server.active > 0 => own.servers.push(server.clone()),
            None => {}
        }
    }
}

fn add_server(own: &mut ProxyServerStatus, other: &ProxyServerStatus) {
    own.active += other.active;
    own.connected += other.connected;
    own.failures += other.failures;
    own.bytes_in += other.bytes_in;
    own.bytes_out += other.bytes_out;
}

/// Takes in an answer that names some services.
pub fn renew(latest: &mut ProxyStatus, answer: ProxyStatus) {
    let named: Vec<_> = answer.services;
    latest.services.retain(|old| named.iter().all(|new| new.name != old.name));
    latest.services.extend(named);
    latest.log.extend(answer.log);
    latest.active = answer.active;
    latest.accept_pauses = answer.accept_pauses;
}

/// It has nobody any more; what it has done stays.
pub fn end(latest: &mut ProxyStatus) {
    latest.active = 0;
    for service in &mut latest.services {
        service.active = 0;
        (service.queue.waiting, service.queue.longest_ms) = (0, 0);
        service.servers.iter_mut().for_each(|server| server.active = 0);
    }
}
