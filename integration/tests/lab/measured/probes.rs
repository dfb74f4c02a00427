//! The prober itself, with peers that are known to work: what fails here is the lab's fault.

use locum_integration::lab::Lab;
use locum_integration::lab::Shape;
use locum_integration::pair::ELECTION;
use locum_integration::peer::Keepalived;
use locum_integration::peer::Peer as _;
use locum_integration::peer::Router;
use locum_integration::probe::Prober;
use locum_integration::probe::Responder;
use locum_integration::require;
use locum_integration::wait;

#[test]
fn keepalived_pair_fails_over_and_the_prober_measures_the_gap() {
    if !require::lab(&["keepalived", "nft"]) {
        return;
    }
    let lab = Lab::new(Shape::MEASURED_PAIR);
    let router = |priority| Router::new(51, priority, &["192.168.1.100/24"]);
    let vip = router(1).vip();
    let mut first = Keepalived.start(&lab.directors[0], &[router(150)]);
    let _second = Keepalived.start(&lab.directors[1], &[router(100)]);
    wait::until("lb1 is master", ELECTION, || lab.holders(vip) == [0]);
    let _responders = Responder::on_each(&lab.directors);
    let prober = Prober::start(&lab.client, vip);
    wait::until("500 probes are answered", ELECTION, || prober.answered() > 500);
    first.terminate();
    wait::until("lb2 is master", ELECTION, || lab.holders(vip) == [1]);
    wait::until("lb2 answers", ELECTION, || prober.latest() == Some(1));
    let report = prober.stop();
    assert_eq!(report.answered_by, [0, 1]);
    // 609 ms; on a busy machine the first may let go later, and the second take over later.
    assert!((200..3000).contains(&report.lost), "keepalived loses its skew time: {report:?}");
    assert_eq!(report.duplicates, 0);
}
