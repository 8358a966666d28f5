//! Makes messages as an encoder or an attacker could write them.

use super::super::{
    ATTRIBUTES, HEADER_MAP, HEADERS, HOST, HTTP, KEY, METHOD, PATH, RAW_BODY, REQUEST, VALUE,
};

/// SplitMix64: quick, and every run makes the same messages.
pub(super) struct Random(u64);

impl Random {
    /// The same messages for the same seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Nearly always UTF-8.
    fn text(&mut self) -> Vec<u8> {
        let length = match self.below(64) {
            0 if self.one_in(50) => 16_383 + self.below(3),
            0 => 127 + self.below(3),
            _ => self.below(20),
        };
        let mut text: Vec<u8> = (0..length).map(|_| self.of(b"aZ/?. 0")).collect();
        match self.below(50) {
            0 => text.push(0xff),
            1..8 => text.extend_from_slice("é".as_bytes()),
            _ => {}
        }
        text
    }

    /// A varint, sometimes longer than necessary, or than permitted.
    fn varint(&mut self, mut number: u64, into: &mut Vec<u8>) {
        while number >= 0x80 {
            into.push(number as u8 | 0x80);
            number >>= 7;
        }
        if self.one_in(40) {
            into.push(number as u8 | 0x80);
            into.extend(std::iter::repeat_n(0x80, self.below(10)));
            number = 0;
        }
        into.push(number as u8);
    }

    fn key(&mut self, number: u32, kind: u8, into: &mut Vec<u8>) {
        self.varint(u64::from(number) << 3 | u64::from(kind), into);
    }

    fn field(&mut self, number: u32, bytes: &[u8], into: &mut Vec<u8>) {
        self.key(number, 2, into);
        self.varint(bytes.len() as u64, into);
        into.extend_from_slice(bytes);
    }

    /// Adds a field of any type under this number.
    fn any_field(&mut self, number: u32, into: &mut Vec<u8>) {
        let kind = if self.one_in(12) { self.of(&[3, 4, 6, 7]) } else { self.of(&[0, 1, 2, 5]) };
        match kind {
            2 => {
                let length = self.below(12);
                let bytes = self.bytes(length);
                return self.field(number, &bytes, into);
            }
            3 => {
                self.key(number, 3, into);
                if self.one_in(2) {
                    self.any_field(number, into);
                }
                let end = if self.one_in(5) { number + 1 } else { number };
                return self.key(end, 4, into);
            }
            _ => self.key(number, kind, into),
        }
        match kind {
            0 => {
                let number = self.next();
                self.varint(number, into);
            }
            1 => into.extend(self.bytes(8)),
            5 => into.extend(self.bytes(4)),
            _ => {}
        }
    }

    /// Adds a field that must be skipped: an unknown number, or sometimes a known one with another
    /// type.
    fn noise(&mut self, known: &[u32], into: &mut Vec<u8>) {
        let unknown = [13, 15, 16, 2047, 2048, (1 << 29) - 1];
        let number = if self.one_in(30) { self.of(known) } else { self.of(&unknown) };
        self.any_field(number, into);
    }

    fn header(&mut self) -> Vec<u8> {
        let names = [
            "authorization",
            "x-request-id",
            "content-type",
            "content-length",
            "Authorization",
            "x-other",
        ];
        let name = self.of(&names).as_bytes();
        let mut entry = Vec::new();
        let value = self.text();
        match self.below(24) {
            0 => {
                self.field(VALUE, &value, &mut entry);
                self.field(KEY, name, &mut entry);
            }
            1 => self.field(KEY, name, &mut entry),
            2 => self.field(VALUE, &value, &mut entry),
            3 => {
                for number in [KEY, VALUE, KEY, VALUE] {
                    let bytes = if number == KEY { self.of(&names).into() } else { self.text() };
                    self.field(number, &bytes, &mut entry);
                }
            }
            4 => {
                self.field(KEY, name, &mut entry);
                self.noise(&[KEY, VALUE], &mut entry);
                self.field(VALUE, &value, &mut entry);
            }
            _ => {
                self.field(KEY, name, &mut entry);
                self.field(VALUE, &value, &mut entry);
            }
        }
        entry
    }

    /// A header in a list, with its value as text or bytes.
    fn raw_header(&mut self, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut entry = Vec::new();
        self.field(KEY, name, &mut entry);
        let number = self.of(&[VALUE, 3, 3, 3]);
        self.field(number, value, &mut entry);
        match self.below(40) {
            0 => self.noise(&[KEY, VALUE, 3], &mut entry),
            1 => self.field(5 - number, b"other", &mut entry),
            _ => {}
        }
        entry
    }

    /// Headers in a list: instead of those in a map, beside them, or contradicting them.
    fn header_map(&mut self, http: &mut Vec<u8>) {
        let beside = self.one_in(2);
        let mut list = Vec::new();
        for name in ["authorization", "content-type", "x-a", "x-b"] {
            if self.one_in(3) {
                continue;
            }
            let value = self.text();
            if beside {
                let mut entry = Vec::new();
                self.field(KEY, name.as_bytes(), &mut entry);
                self.field(VALUE, &value, &mut entry);
                self.field(HEADERS, &entry, http);
            }
            let value = if self.one_in(20) { self.text() } else { value };
            for _ in 0..self.of(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 2]) {
                let entry = self.raw_header(name.as_bytes(), &value);
                self.field(1, &entry, &mut list);
            }
        }
        if self.one_in(30) {
            self.noise(&[1], &mut list);
        }
        for _ in 0..self.of(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 2]) {
            self.field(HEADER_MAP, &list, http);
        }
    }

    fn http(&mut self) -> Vec<u8> {
        let mut http = Vec::new();
        if self.one_in(8) {
            self.header_map(&mut http);
            // Nearly always without other headers.
            if !self.one_in(10) {
                return http;
            }
        }
        for _ in 0..self.below(8) {
            match self.below(14) {
                0..3 => {
                    let number = self.of(&[METHOD, PATH, HOST]);
                    let text = self.text();
                    self.field(number, &text, &mut http);
                }
                3..9 => {
                    let header = self.header();
                    self.field(HEADERS, &header, &mut http);
                }
                9 => {
                    let length = self.below(40);
                    let body = self.bytes(length);
                    self.field(RAW_BODY, &body, &mut http);
                }
                // Texts and a number that Envoy sends and patgate does not read.
                10 | 11 => {
                    let number = self.of(&[1, 6, 7, 8, 10, 11]);
                    let text = self.text();
                    self.field(number, &text, &mut http);
                }
                12 => {
                    let size = self.next();
                    self.key(9, 0, &mut http);
                    self.varint(size, &mut http);
                }
                _ => self.noise(&[1, METHOD, HEADERS, PATH, HOST, 9, RAW_BODY], &mut http),
            }
        }
        http
    }

    /// A message that holds `inner`, nearly always once, and other fields beside it.
    fn around(&mut self, number: u32, inner: &[u8], others: &[u32]) -> Vec<u8> {
        let mut message = Vec::new();
        let times = match self.below(60) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..times {
            if self.one_in(5) {
                let other = self.of(others);
                self.field(other, &[], &mut message);
            }
            if self.one_in(10) {
                self.noise(&[number], &mut message);
            }
            self.field(number, inner, &mut message);
        }
        if self.one_in(10) {
            self.noise(&[number], &mut message);
        }
        message
    }

    pub(super) fn message(&mut self) -> Vec<u8> {
        let http = self.http();
        let request = self.around(HTTP, &http, &[1]);
        let mut attributes = self.around(REQUEST, &request, &[1, 2, 10, 11]);
        if self.one_in(100) {
            self.any_field(10, &mut attributes);
        }
        let mut message = self.around(ATTRIBUTES, &attributes, &[2]);
        if !message.is_empty() {
            let at = self.below(message.len());
            match self.below(32) {
                0 => message[at] = self.next() as u8,
                1 => message.truncate(at),
                2 => message.insert(at, self.next() as u8),
                _ => {}
            }
        }
        message
    }
}

/// The first `count` messages with which the decoder is tested.
pub(crate) fn generated(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random(2);
    (0..count).map(move |_| random.message())
}
