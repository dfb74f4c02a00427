//! Netlink attributes: lists of length, kind and value, each padded to four octets.

use netlink_packet_core::NlasIterator;

/// Length and kind before a value.
const HEADER_OCTETS: usize = 4;

/// One attribute of a received message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attribute<'a> {
    /// Without the flags for nesting and byte order.
    pub kind: u16,
    pub value: &'a [u8],
}

/// The attributes of a list, up to the first malformed one.
pub(crate) fn attributes(octets: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    NlasIterator::new(octets).map_while(|buffer| {
        let buffer = buffer.ok()?;
        let (kind, length) = (buffer.kind(), usize::from(buffer.length()));
        Some(Attribute { kind, value: buffer.into_inner().get(HEADER_OCTETS..length)? })
    })
}

/// A string attribute, with or without its NUL.
pub(crate) fn text(octets: &[u8]) -> String {
    let end = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
    String::from_utf8_lossy(&octets[..end]).into_owned()
}

/// A list of attributes being written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Behind a header, whose length is a multiple of four.
    pub(crate) fn after(header: Vec<u8>) -> Self {
        Self(header)
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_octets(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        // INVARIANT: names are cut, and everything else is of fixed and small size.
        let length = u16::try_from(HEADER_OCTETS + value.len()).expect("short attribute");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// With the NUL that the kernel wants. A name longer than any it knows is cut to a length that
    /// it still refuses.
    pub(crate) fn put_text(&mut self, kind: u16, value: &str) {
        const LONGEST: usize = 64;
        let mut octets = value.as_bytes()[..value.len().min(LONGEST)].to_vec();
        octets.push(0);
        self.put(kind, &octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_cut_list_ends_early() {
        let mut list = Attributes::default();
        list.put(7, &[1, 2, 3]);
        list.put_text(8, "wlc");
        let octets = list.into_octets();
        assert_eq!(octets.len(), 16);
        let read: Vec<_> = attributes(&octets).collect();
        assert_eq!(read[0], Attribute { kind: 7, value: &[1, 2, 3] });
        assert_eq!(text(read[1].value), "wlc");
        for end in 0..octets.len() {
            assert!(attributes(&octets[..end]).count() < 2);
        }
    }
}
