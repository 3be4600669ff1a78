//! Streams to measure with: responses of one result set each, of a known number of rows, made without chance.

/// A response: the tokens, and how many rows are in them.
#[derive(Debug, Clone)]
pub struct Response {
    /// COLMETADATA, rows, DONE (TDS 7.4).
    pub bytes: Vec<u8>,
    /// Rows.
    pub rows: u64,
}

/// What the rows look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// INTN, NVARCHAR(50) of 25 characters on average and NULL in one of 16, DECIMAL(18,2), DATETIME2(7), INTN NULL in one of 4: 78 bytes
    /// on average.
    Mixed,
    /// The demo's `events`: 12 columns of a wide mix of types, 300 bytes on average.
    Events,
    /// Twenty nullable INTs that are never NULL: 101 bytes.
    Ints,
    /// Ten columns NOT NULL of fixed length: 57 bytes.
    Fixed,
    /// The columns of `Mixed` and five more, as NBCROW, half of the values NULL.
    Nbc,
    /// An INT and an NVARCHAR(MAX) of 2 to 6 KB in chunks.
    Plp,
    /// 1 024 columns, as many as a table has: INT, INTN, NVARCHAR(50), DATETIME2(7) in turn, 9 KB.
    Wide,
    /// The same, all nullable, as NBCROW with seven of eight values NULL.
    WideNbc,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 8] = [
        Self::Mixed,
        Self::Events,
        Self::Ints,
        Self::Fixed,
        Self::Nbc,
        Self::Plp,
        Self::Wide,
        Self::WideNbc,
    ];

    /// A name for reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Events => "events",
            Self::Ints => "ints",
            Self::Fixed => "fixed",
            Self::Nbc => "nbcrow",
            Self::Plp => "plp",
            Self::Wide => "wide",
            Self::WideNbc => "wide nbcrow",
        }
    }

    /// A response of at least `size` bytes.
    #[must_use]
    pub fn response(self, size: usize) -> Response {
        let mut maker = Maker::new(size + 16 * 1024);
        maker.columns(self);
        let mut rows = 0;
        while maker.bytes.len() < size {
            maker.row(self);
            rows += 1;
        }
        maker.bytes.extend([0xFD, 0x10, 0, 0xC1, 0]);
        maker.bytes.extend(u64::to_le_bytes(rows));
        Response {
            bytes: maker.bytes,
            rows,
        }
    }
}

/// Bytes of the shortest `events` row without NULL.
pub(crate) const EVENT_MIN: usize = 109;
/// Bytes of the longest.
pub(crate) const EVENT_MAX: usize = EVENT_MIN + 100 + 200 + 400;

/// Columns of the wide shapes.
const WIDE: usize = 1024;
const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];
const INT_N: &[u8] = &[0x26, 4];
const BIGINT_N: &[u8] = &[0x26, 8];
const DECIMAL: &[u8] = &[0x6A, 9, 18, 2];
const DATETIME2: &[u8] = &[0x2A, 7];

/// Writes rows behind each other.
pub(crate) struct Maker {
    pub(crate) bytes: Vec<u8>,
    state: u64,
}

impl Maker {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(room),
            state: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// xorshift: the same numbers in every run.
    fn next(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % below
    }

    pub(crate) fn columns(&mut self, shape: Shape) {
        let nvarchar: &[u8] = &[&[0xE7, 100, 0][..], &COLLATION].concat();
        let wide: &[u8] = &[&[0xE7, 0x90, 0x01][..], &COLLATION].concat();
        let varchar: &[u8] = &[&[0xA7, 200, 0][..], &COLLATION].concat();
        let max: &[u8] = &[&[0xE7, 0xFF, 0xFF][..], &COLLATION].concat();
        let types: &[&[u8]] = match shape {
            Shape::Mixed => &[INT_N, nvarchar, DECIMAL, DATETIME2, INT_N],
            Shape::Events => &[
                &[0x7F],
                &[0x3D],
                &[0x24, 16],
                INT_N,
                nvarchar,
                DECIMAL,
                DATETIME2,
                varchar,
                &[0x68, 1],
                &[0x6D, 8],
                wide,
                &[0xA5, 64, 0],
            ],
            Shape::Ints => &[INT_N; 20],
            Shape::Fixed => &[
                &[0x38],
                &[0x7F],
                &[0x3D],
                &[0x3E],
                &[0x38],
                &[0x34],
                &[0x32],
                &[0x3C],
                &[0x7F],
                &[0x38],
            ],
            Shape::Nbc => &[
                INT_N, nvarchar, DECIMAL, DATETIME2, INT_N, BIGINT_N, BIGINT_N, varchar, DATETIME2, INT_N,
            ],
            Shape::Plp => &[&[0x38], max],
            Shape::Wide => &[&[0x38], INT_N, nvarchar, DATETIME2].repeat(WIDE / 4),
            Shape::WideNbc => &[INT_N, BIGINT_N, nvarchar, DATETIME2].repeat(WIDE / 4),
        };
        self.bytes.push(0x81);
        self.bytes.extend(u16::to_le_bytes(types.len() as u16));
        for info in types {
            self.bytes.extend([0, 0, 0, 0, 9, 0]);
            self.bytes.extend_from_slice(info);
            self.bytes.extend([1, b'c', 0]);
        }
    }

    fn fill(&mut self, n: usize) {
        self.bytes.resize(self.bytes.len() + n, 0x41);
    }

    fn byte_value(&mut self, n: u8) {
        self.bytes.push(n);
        self.fill(usize::from(n));
    }

    /// A DECIMAL(18,2): its sign, then its amount.
    fn decimal(&mut self) {
        self.bytes.extend([9, 1, 0x41, 0x41, 0x41, 0x41, 0, 0, 0, 0]);
    }

    /// A DATETIME2(7) of this century.
    fn datetime2(&mut self) {
        self.bytes
            .extend([8, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x0B]);
    }

    /// An NVARCHAR of so many letters.
    fn letters(&mut self, n: u64) {
        self.bytes.extend(u16::to_le_bytes((2 * n) as u16));
        (0..n).for_each(|_| self.bytes.extend([0x41, 0]));
    }

    fn ushort_value(&mut self, n: u64) {
        self.bytes.extend(u16::to_le_bytes(n as u16));
        self.fill(n as usize);
    }

    pub(crate) fn row(&mut self, shape: Shape) {
        match shape {
            Shape::Mixed => {
                self.bytes.push(0xD1);
                self.mixed();
            }
            Shape::Events => self.event(),
            Shape::Ints => {
                self.bytes.push(0xD1);
                (0..20).for_each(|_| self.byte_value(4));
            }
            Shape::Fixed => {
                self.bytes.push(0xD1);
                self.fill(4 + 8 + 8 + 8 + 4 + 2 + 1 + 8 + 8 + 4);
            }
            Shape::Nbc => self.nbc(),
            Shape::Plp => self.plp(),
            Shape::Wide => self.wide(),
            Shape::WideNbc => self.wide_nbc(),
        }
    }

    fn mixed(&mut self) {
        self.byte_value(4);
        if self.next(16) == 0 {
            self.bytes.extend([0xFF, 0xFF]);
        } else {
            let chars = self.next(51);
            self.letters(chars);
        }
        self.decimal();
        self.datetime2();
        let n = if self.next(4) == 0 { 0 } else { 4 };
        self.byte_value(n);
    }

    fn event(&mut self) {
        let name = self.next(51) * 2;
        let letters = self.next(120);
        let offset = if self.next(8) == 0 { 0 } else { 8 };
        let note = self.next(120) * 2;
        self.event_of(name, letters, offset, note);
    }

    fn event_of(&mut self, name: u64, letters: u64, offset: u8, note: u64) {
        self.bytes.push(0xD1);
        self.fill(8 + 8);
        self.byte_value(16);
        self.byte_value(4);
        self.ushort_value(name);
        self.byte_value(9);
        self.byte_value(8);
        self.ushort_value(letters);
        self.byte_value(1);
        self.byte_value(offset);
        self.ushort_value(note);
        self.ushort_value(32);
    }

    /// An `events` row of just this many bytes: from [`EVENT_MIN`] to [`EVENT_MAX`].
    fn event_sized(&mut self, bytes: usize) {
        let extra = (bytes - EVENT_MIN) as u64;
        // The two nvarchar columns take even lengths only; the varchar column evens it out.
        let letters = match extra {
            0..=200 => extra,
            _ => 200 - (extra & 1),
        };
        let name = (extra - letters).min(100);
        self.event_of(name, letters, 8, extra - letters - name);
    }

    /// `events` rows that fill these bytes to the last; how many.
    pub(crate) fn fill_with_events(&mut self, bytes: usize) -> u64 {
        let end = self.bytes.len() + bytes;
        let mut rows = 0;
        while end - self.bytes.len() > EVENT_MIN + EVENT_MAX {
            self.event();
            rows += 1;
        }
        let left = end - self.bytes.len();
        if left > EVENT_MAX {
            self.event_sized(left / 2);
            rows += 1;
        }
        self.event_sized(end - self.bytes.len());
        rows + 1
    }

    fn nbc(&mut self) {
        let nulls = self.next(1024);
        self.bytes.push(0xD2);
        self.bytes.extend(u16::to_le_bytes(nulls as u16));
        let lengths: [(u8, bool); 10] = [
            (4, false),
            (0, true),
            (9, false),
            (8, false),
            (4, false),
            (8, false),
            (8, false),
            (0, true),
            (8, false),
            (4, false),
        ];
        for (i, (len, text)) in lengths.into_iter().enumerate() {
            if nulls >> i & 1 == 1 {
                continue;
            }
            if text {
                let n = self.next(51) * 2;
                self.ushort_value(n);
            } else {
                self.byte_value(len);
            }
        }
    }

    fn wide(&mut self) {
        self.bytes.push(0xD1);
        for _ in 0..WIDE / 4 {
            self.fill(4);
            let n = if self.next(16) == 0 { 0 } else { 4 };
            self.byte_value(n);
            let chars = self.next(11);
            self.ushort_value(chars * 2);
            self.byte_value(8);
        }
    }

    fn wide_nbc(&mut self) {
        self.bytes.push(0xD2);
        let bitmap = self.bytes.len();
        self.bytes.resize(bitmap + WIDE / 8, 0xFF);
        for column in 0..WIDE {
            if self.next(8) > 0 {
                continue;
            }
            self.bytes[bitmap + column / 8] &= !(1 << (column % 8));
            match column % 4 {
                0 => self.byte_value(4),
                2 => {
                    let chars = self.next(11);
                    self.ushort_value(chars * 2);
                }
                _ => self.byte_value(8),
            }
        }
    }

    fn plp(&mut self) {
        self.bytes.push(0xD1);
        self.fill(4);
        let total = 2000 + self.next(2000) * 2;
        self.bytes.extend(u64::to_le_bytes(total));
        let mut left = total;
        while left > 0 {
            let chunk = left.min(2048);
            self.bytes.extend(u32::to_le_bytes(chunk as u32));
            self.fill(chunk as usize);
            left -= chunk;
        }
        self.bytes.extend([0; 4]);
    }
}
