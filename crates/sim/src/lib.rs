//! Run N engines on a simulated LAN and kernel from a seed and check invariants.
