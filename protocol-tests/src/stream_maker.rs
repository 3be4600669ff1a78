//! Makes random, valid responses: every data type, every row token, values of every length class, tokens between rows.

use fastrand::Rng;
use weir_tds::version::TdsVersion;
use weir_tds::walker::WalkerOptions;

/// How a column's values are written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Fixed(usize),
    Byte(u8),
    UShort,
    Variant,
    Text,
    Plp,
}

/// A response of `sets` result sets with up to `rows` rows each.
#[must_use]
pub fn response(rng: &mut Rng, options: WalkerOptions, sets: usize, rows: usize) -> Vec<u8> {
    let mut maker = Maker {
        rng,
        options,
        out: Vec::new(),
    };
    for _set in 0..sets {
        maker.result_set(rows);
    }
    maker.return_value();
    maker.out.extend([0x79, 1, 0, 0, 0]);
    maker.done(0xFE, 0);
    maker.out
}

struct Maker<'a> {
    rng: &'a mut Rng,
    options: WalkerOptions,
    out: Vec<u8>,
}

impl Maker<'_> {
    fn modern(&self) -> bool {
        self.options.version >= TdsVersion::V7_2
    }

    fn u16(&mut self, n: usize) {
        self.out
            .extend(u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes());
    }

    fn u32(&mut self, n: usize) {
        self.out
            .extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn bytes(&mut self, n: usize) {
        let rng = &mut *self.rng;
        self.out.extend((0..n).map(|_| rng.u8(..)));
    }

    fn text8(&mut self, most: usize) {
        let chars = self.rng.usize(..=most);
        self.out.push(u8::try_from(chars).unwrap_or(u8::MAX));
        self.bytes(chars * 2);
    }

    fn text16(&mut self, most: usize) {
        let chars = self.rng.usize(..=most);
        self.u16(chars);
        self.bytes(chars * 2);
    }

    fn user_type(&mut self) {
        if self.modern() { self.u32(0) } else { self.u16(0) }
    }

    fn done(&mut self, token: u8, status: usize) {
        self.out.push(token);
        self.u16(status);
        self.u16(0xC1);
        self.bytes(if self.modern() { 8 } else { 4 });
    }

    fn result_set(&mut self, most_rows: usize) {
        let count = if self.rng.u8(..4) == 0 {
            self.rng.usize(1..40)
        } else {
            self.rng.usize(1..8)
        };
        let all_fixed = self.rng.u8(..6) == 0;
        let encrypted = self.options.column_encryption;
        self.out.push(0x81);
        self.u16(count);
        if encrypted {
            self.cek_table();
        }
        let kinds: Vec<Kind> = (0..count).map(|_| self.column(all_fixed, encrypted)).collect();
        if self.options.data_classification > 0 {
            self.data_classification(count);
        }
        if self.rng.bool() {
            self.out.extend([0xA9, 2, 0, 1, 0]);
        }
        let alt = self.rng.u8(..5) == 0;
        let alt_kinds = if alt { self.alt_metadata() } else { Vec::new() };
        for _row in 0..self.rng.usize(..=most_rows) {
            self.row(&kinds);
            if alt && self.rng.u8(..4) == 0 {
                self.out.extend([0xD3, 7, 0]);
                alt_kinds.iter().for_each(|kind| self.value(*kind));
            }
            if self.rng.u8(..12) == 0 {
                self.small_token();
            }
        }
        self.done(0xFF, 0x11);
    }

    fn row(&mut self, kinds: &[Kind]) {
        if self.options.version < TdsVersion::V7_3B || self.rng.bool() {
            self.out.push(0xD1);
            kinds.iter().for_each(|kind| self.value(*kind));
            return;
        }
        self.out.push(0xD2);
        let nulls: Vec<bool> = kinds.iter().map(|_| self.rng.u8(..3) == 0).collect();
        for eight in nulls.chunks(8) {
            let byte = eight
                .iter()
                .rev()
                .fold(0u8, |bits, null| bits << 1 | u8::from(*null));
            self.out.push(byte);
        }
        for (kind, null) in kinds.iter().zip(nulls) {
            if !null {
                self.value(*kind);
            }
        }
    }

    fn cek_table(&mut self) {
        let entries = self.rng.usize(..3);
        self.u16(entries);
        for _entry in 0..entries {
            self.bytes(20);
            let values = self.rng.u8(..3);
            self.out.push(values);
            for _value in 0..values {
                let key = self.rng.usize(..20);
                self.u16(key);
                self.bytes(key);
                self.text8(9);
                self.text16(9);
                self.text8(9);
            }
        }
    }

    fn column(&mut self, fixed: bool, encryption: bool) -> Kind {
        self.user_type();
        let encrypted = encryption && !fixed && self.rng.u8(..4) == 0;
        self.u16(if encrypted { 0x0809 } else { 9 });
        let (kind, lob) = match (fixed, encrypted) {
            (true, _) => (self.fixed_type(), false),
            (_, true) => {
                self.out.extend([0xA5, 0xFF, 0xFF]);
                (Kind::Plp, false)
            }
            _ => self.any_type(),
        };
        if lob && self.modern() {
            let parts = self.rng.u8(..4);
            self.out.push(parts);
            (0..parts).for_each(|_| self.text16(9));
        } else if lob {
            self.text16(9);
        }
        if encrypted {
            self.u16(0);
            self.user_type();
            self.out.extend([0x26, 4]);
            if self.rng.bool() {
                self.out.push(0);
                self.text8(5);
            } else {
                self.out.push(2);
            }
            self.out.extend([1, 1]);
        }
        self.text8(12);
        kind
    }

    fn fixed_type(&mut self) -> Kind {
        let (byte, len) = *self
            .rng
            .choice(&[
                (0x30, 1),
                (0x32, 1),
                (0x34, 2),
                (0x38, 4),
                (0x3A, 4),
                (0x3B, 4),
                (0x3C, 8),
                (0x3D, 8),
            ])
            .unwrap_or(&(0x7F, 8));
        self.out.push(byte);
        Kind::Fixed(len)
    }

    fn collation(&mut self) {
        if self.options.version > TdsVersion::V7_0 {
            self.bytes(5);
        }
    }

    /// Writes a TYPE_INFO; its values' kind, and whether a table name follows.
    fn any_type(&mut self) -> (Kind, bool) {
        let newest = self.options.version >= TdsVersion::V7_4;
        let last = if newest {
            15
        } else if self.modern() {
            12
        } else {
            8
        };
        let kind = match self.rng.u8(..last) {
            0 | 1 => self.fixed_type(),
            2 => {
                self.out.extend([0x26, 8]);
                Kind::Byte(8)
            }
            3 => {
                self.out.extend([0x6A, 9, 18, 2]);
                Kind::Byte(9)
            }
            4 => {
                self.out.extend([0xE7, 100, 0]);
                self.collation();
                Kind::UShort
            }
            5 => {
                self.out.extend([0xAD, 100, 0]);
                Kind::UShort
            }
            6 => {
                let byte = *self.rng.choice(&[0x23, 0x63, 0x22]).unwrap_or(&0x22);
                self.out.push(byte);
                self.u32(0x7FFF_FFFF);
                if byte != 0x22 {
                    self.collation();
                }
                return (Kind::Text, true);
            }
            7 => {
                self.out.push(0x62);
                self.u32(8009);
                Kind::Variant
            }
            later => self.later_type(later),
        };
        (kind, false)
    }

    /// The types that came with 7.2 and later.
    fn later_type(&mut self, number: u8) -> Kind {
        match number {
            8 => {
                self.out.extend([0xA7, 0xFF, 0xFF]);
                self.collation();
                Kind::Plp
            }
            9 => {
                self.out.extend([0xF1, 1]);
                self.text8(5);
                self.text8(5);
                self.text16(5);
                Kind::Plp
            }
            10 => {
                self.out.extend([0xF0, 0xFF, 0xFF]);
                (0..3).for_each(|_| self.text8(9));
                self.text16(60);
                Kind::Plp
            }
            11 => {
                self.out.push(0x28);
                Kind::Byte(3)
            }
            12 => {
                self.out.extend([0x2A, 7]);
                Kind::Byte(8)
            }
            13 => {
                self.out.push(0xF4);
                Kind::Plp
            }
            _ => {
                self.out.extend([0xF5, 100, 0, 0]);
                Kind::UShort
            }
        }
    }

    fn value(&mut self, kind: Kind) {
        let null = self.rng.u8(..5) == 0;
        let long = if self.rng.u8(..30) == 0 { 3000 } else { 60 };
        let n = self.rng.usize(..long);
        match kind {
            Kind::Fixed(len) => self.bytes(len),
            Kind::Byte(len) => {
                let len = if null { 0 } else { len };
                self.out.push(len);
                self.bytes(usize::from(len));
            }
            Kind::UShort if null => self.u16(0xFFFF),
            Kind::UShort => {
                self.u16(n);
                self.bytes(n);
            }
            Kind::Variant => {
                let (head, data): (&[u8], usize) = match self.rng.u8(..3) {
                    _ if null => (&[], 0),
                    0 => (&[0x38, 0], 4),
                    1 => (&[0x2A, 1, 7], 8),
                    // varbinary(8000).
                    _ => (&[0xA5, 2, 0x40, 0x1F], n),
                };
                self.u32(head.len() + data);
                self.out.extend(head);
                self.bytes(data);
            }
            Kind::Text if null => self.out.push(0),
            Kind::Text => {
                self.out.push(16);
                self.bytes(24);
                self.u32(n);
                self.bytes(n);
            }
            Kind::Plp if null => self.out.extend([0xFF; 8]),
            Kind::Plp => self.plp(n),
        }
    }

    fn plp(&mut self, n: usize) {
        let total = if self.rng.bool() { n as u64 } else { u64::MAX - 1 };
        self.out.extend(total.to_le_bytes());
        let mut left = n;
        while left > 0 {
            let chunk = self.rng.usize(1..=left);
            self.u32(chunk);
            self.bytes(chunk);
            left -= chunk;
        }
        self.u32(0);
    }

    fn alt_metadata(&mut self) -> Vec<Kind> {
        let count = self.rng.usize(1..4);
        self.out.push(0x88);
        self.u16(count);
        self.out.extend([7, 0, 1, 1, 0]);
        (0..count)
            .map(|_| {
                self.out.extend([0x4D, 1, 0]);
                self.column(false, false)
            })
            .collect()
    }

    fn data_classification(&mut self, columns: usize) {
        let second = self.options.data_classification >= 2;
        self.out.push(0xA3);
        for _list in 0..2 {
            let n = self.rng.usize(..3);
            self.u16(n);
            (0..n).for_each(|_| {
                self.text8(9);
                self.text8(9);
            });
        }
        if second {
            self.u32(20);
        }
        self.u16(columns);
        for _column in 0..columns {
            let n = self.rng.usize(..3);
            self.u16(n);
            self.bytes(n * if second { 8 } else { 4 });
        }
    }

    fn small_token(&mut self) {
        match self.rng.u8(..5) {
            0 => self.out.extend([0xE3, 1, 0, 15, 4, 0, 0, 0, 1, 2, 3, 4, 0]),
            1 => self.out.extend([0xE3, 4, 0, 1, 1, b'a', 0]),
            2 => {
                let n = self.rng.usize(12..300);
                self.out.push(0xAB);
                self.u16(n);
                self.bytes(n);
            }
            3 => {
                let n = self.rng.usize(5..400);
                self.out.push(0xE4);
                self.u32(n);
                self.bytes(n);
            }
            _ => {
                self.out.push(0xAE);
                self.out.push(1);
                let n = self.rng.usize(..100);
                self.u32(n);
                self.bytes(n);
                self.out.push(0xFF);
            }
        }
    }

    fn return_value(&mut self) {
        self.out.push(0xAC);
        self.u16(0);
        self.text8(9);
        self.out.push(1);
        self.user_type();
        self.u16(0);
        let n = self.rng.usize(..500);
        match self.rng.u8(..4) {
            0 => self.out.extend([0x26, 4, 4, 1, 0, 0, 0]),
            1 => {
                self.out.push(0x22);
                self.u32(0x7FFF_FFFF);
                self.u32(n);
                self.bytes(n);
            }
            2 => {
                self.out
                    .extend([0x22, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF]);
            }
            _ => {
                self.out.extend([0xA5, 0xFF, 0xFF]);
                self.plp(n);
            }
        }
    }
}
