//! A program of the classic BPF under construction: jumps go to labels.

use socket2::SockFilter;

/// Operations of the classic BPF that are used here. A is the accumulator, X the index register.
pub mod code {
    /// A = word or octet at `k`.
    pub const LOAD_WORD: u16 = 0x20;
    pub const LOAD_OCTET: u16 = 0x30;
    /// A = octet at X + `k`.
    pub const LOAD_OCTET_INDEXED: u16 = 0x50;
    /// A = the 16 bits at `k`.
    pub const LOAD_HALF: u16 = 0x28;
    /// A = `k`; X = `k`.
    pub const LOAD_CONSTANT: u16 = 0x00;
    pub const LOAD_INDEX_CONSTANT: u16 = 0x01;
    /// A = octets of what the program sees.
    pub const LOAD_LENGTH: u16 = 0x80;
    /// X = 4 * (low half of the octet at `k`): the length of an IPv4 header.
    pub const LOAD_HEADER_LENGTH: u16 = 0xb1;
    /// `M[k] = A`; `A = M[k]`.
    pub const STORE: u16 = 0x02;
    pub const RECALL: u16 = 0x60;
    /// `M[k] = X`; `X = M[k]`.
    pub const STORE_INDEX: u16 = 0x03;
    pub const RECALL_INDEX: u16 = 0x61;
    /// X = A; A = X.
    pub const MOVE_TO_INDEX: u16 = 0x07;
    pub const MOVE_FROM_INDEX: u16 = 0x87;
    pub const ADD: u16 = 0x04;
    pub const ADD_INDEX: u16 = 0x0c;
    pub const SUBTRACT: u16 = 0x14;
    pub const SUBTRACT_INDEX: u16 = 0x1c;
    pub const AND: u16 = 0x54;
    pub const SHIFT_RIGHT: u16 = 0x74;
    pub const SHIFT_RIGHT_INDEX: u16 = 0x7c;
    /// Jumps: `jt` further when it holds for A and `k`, else `jf`.
    pub const ALWAYS: u16 = 0x05;
    pub const IF_EQUAL: u16 = 0x15;
    pub const IF_GREATER: u16 = 0x25;
    pub const IF_AT_LEAST: u16 = 0x35;
    pub const IF_ANY_BIT: u16 = 0x45;
    pub const RETURN: u16 = 0x06;
}

/// One instruction in the kernel's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl Instruction {
    pub const fn into_kernel(self) -> SockFilter {
        SockFilter::new(self.code, self.jt, self.jf, self.k)
    }
}

/// A program under construction.
pub struct Program<Label> {
    instructions: Vec<Instruction>,
    /// Positions of unconditional jumps, and where they go.
    jumps: Vec<(usize, Label)>,
    places: Vec<(Label, usize)>,
}

impl<Label: Copy + PartialEq> Program<Label> {
    pub const fn new() -> Self {
        Self { instructions: Vec::new(), jumps: Vec::new(), places: Vec::new() }
    }

    /// An instruction that goes on with the next.
    pub fn load(&mut self, code: u16, k: u32) {
        self.instructions.push(Instruction { code, jt: 0, jf: 0, k });
    }

    /// A conditional jump over instructions that are counted by hand.
    pub fn skip(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.instructions.push(Instruction { code, jt, jf, k });
    }

    pub fn jump(&mut self, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.load(code::ALWAYS, 0);
    }

    /// Goes to `to` when the condition holds. Its own jump cannot reach further than 255
    /// instructions, an unconditional one can.
    pub fn when(&mut self, code: u16, k: u32, to: Label) {
        self.instructions.push(Instruction { code, jt: 0, jf: 1, k });
        self.jump(to);
    }

    pub fn unless(&mut self, code: u16, k: u32, to: Label) {
        self.instructions.push(Instruction { code, jt: 1, jf: 0, k });
        self.jump(to);
    }

    /// The next instruction is where jumps to this label go; they lie ahead of it.
    pub fn place(&mut self, label: Label) {
        self.places.push((label, self.instructions.len()));
    }

    pub fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            // INVARIANT: every label that is jumped to is placed later in the same program.
            let (_, target) = self.places.iter().find(|(one, _)| *one == label).expect("placed");
            self.instructions[at].k = (target - at - 1) as u32;
        }
        self.instructions
    }
}
