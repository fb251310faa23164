//! Git's pkt-lines: four hex digits of length, then the bytes (gitprotocol-common), and the side-band that
//! carries a pack within them (gitprotocol-pack).

use super::ExchangeError;
use std::io::{self, Read, Write};

/// Most bytes of a line with its four digits (`LARGE_PACKET_MAX`).
const LINE_BYTES_MAX: usize = 65_520;

/// Most bytes of pack in one side-band line: less the digits and the band's number.
const BAND_BYTES_MAX: usize = LINE_BYTES_MAX - 5;

/// Most bytes of what a peer's error line may make us repeat.
const REFUSAL_BYTES_MAX: usize = 400;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// `0000`: the end of a request or response.
    Flush,
    /// `0001`: the end of a section.
    Delimiter,
    /// `0002`: the end of a stateless response.
    ResponseEnd,
    /// Bytes, with a trailing newline if there was one.
    Data(&'a [u8]),
}

impl<'a> Line<'a> {
    /// The line's text without its newline; `None` for the special packets.
    pub(super) fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Data(bytes) => Some(bytes.strip_suffix(b"\n").unwrap_or(bytes)),
            _ => None,
        }
    }
}

/// Reads packets, never more than a packet asks for.
pub(super) struct Reader<R> {
    inner: R,
    buffer: Vec<u8>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
        }
    }

    /// The next packet; `None` where the stream ends between two packets.
    pub(super) fn next(&mut self) -> Result<Option<Line<'_>>, ExchangeError> {
        let mut digits = [0; 4];
        match fill(&mut self.inner, &mut digits)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(ExchangeError::Truncated("a pkt-line's length")),
        }
        let length = parse_length(digits)?;
        match length {
            0 => return Ok(Some(Line::Flush)),
            1 => return Ok(Some(Line::Delimiter)),
            2 => return Ok(Some(Line::ResponseEnd)),
            _ => {}
        }
        self.buffer.resize(length - 4, 0);
        if fill(&mut self.inner, &mut self.buffer)? != self.buffer.len() {
            return Err(ExchangeError::Truncated("a pkt-line"));
        }
        Ok(Some(Line::Data(&self.buffer)))
    }

    /// The next packet, where the stream must not end. An `ERR` line becomes [`ExchangeError::Refused`].
    pub(super) fn expect(&mut self, what: &'static str) -> Result<Line<'_>, ExchangeError> {
        match self.next()? {
            None => Err(ExchangeError::Truncated(what)),
            Some(Line::Data(bytes)) if bytes.starts_with(b"ERR ") => Err(refused(&bytes[4..])),
            Some(line) => Ok(line),
        }
    }
}

/// A peer's own words, cut to a length and made harmless for a log.
fn refused(words: &[u8]) -> ExchangeError {
    let words = &words[..words.len().min(REFUSAL_BYTES_MAX)];
    let text = String::from_utf8_lossy(words);
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    ExchangeError::Refused(clean.trim_end().to_owned())
}

/// Length of a packet from its digits: 0 to 2, or 4 to [`LINE_BYTES_MAX`].
fn parse_length(digits: [u8; 4]) -> Result<usize, ExchangeError> {
    let mut length = 0;
    for digit in digits {
        let value = char::from(digit)
            .to_digit(16)
            .ok_or_else(|| ExchangeError::protocol("a pkt-line's length is not hex"))?;
        length = length * 16 + value as usize;
    }
    if length == 3 || length > LINE_BYTES_MAX {
        return Err(ExchangeError::protocol(format!(
            "a pkt-line of {length} bytes"
        )));
    }
    Ok(length)
}

/// Reads until `buffer` is full or the stream ends: how many bytes there were.
fn fill(inner: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ExchangeError> {
    let mut done = 0;
    while done < buffer.len() {
        match inner.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ExchangeError::Connection(error)),
        }
    }
    Ok(done)
}

/// Writes one line. `bytes` are ours and short enough.
pub(super) fn data(out: &mut dyn Write, bytes: &[u8]) -> Result<(), ExchangeError> {
    assert!(bytes.len() + 4 <= LINE_BYTES_MAX, "a line that is too long");
    write!(out, "{:04x}", bytes.len() + 4)
        .and_then(|()| out.write_all(bytes))
        .map_err(ExchangeError::Connection)
}

/// Writes a special packet.
pub(super) fn special(out: &mut dyn Write, line: &Line<'_>) -> Result<(), ExchangeError> {
    let digits: &[u8] = match line {
        Line::Flush => b"0000",
        Line::Delimiter => b"0001",
        Line::ResponseEnd => b"0002",
        Line::Data(bytes) => return data(out, bytes),
    };
    out.write_all(digits).map_err(ExchangeError::Connection)
}

/// Writes a pack into band 1.
pub(super) struct BandWriter<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl<'a> BandWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            buffer: Vec::with_capacity(BAND_BYTES_MAX),
        }
    }

    fn emit(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            write!(self.out, "{:04x}\x01", self.buffer.len() + 5)?;
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Write for BandWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == BAND_BYTES_MAX {
            self.emit()?;
        }
        let taken = bytes.len().min(BAND_BYTES_MAX - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.emit()
    }
}

/// Reads band 1 up to the flush packet. What is said beside it (band 2) is passed over.
pub(super) struct BandReader<'a, R> {
    lines: &'a mut Reader<R>,
    /// Told whenever something is said that is not the pack.
    heard: &'a dyn Fn(),
    /// Where the current line's unread bytes begin in the reader's buffer.
    position: usize,
    /// Whether the reader's buffer is a line of band 1.
    current: bool,
    ended: bool,
}

impl<'a, R: Read> BandReader<'a, R> {
    pub(super) fn new(lines: &'a mut Reader<R>, heard: &'a dyn Fn()) -> Self {
        Self {
            lines,
            heard,
            position: 0,
            current: false,
            ended: false,
        }
    }

    /// Up to `buffer.len()` bytes of the pack; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ExchangeError> {
        while !(self.ended || self.current && self.position < self.lines.buffer.len()) {
            self.advance()?;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let rest = &self.lines.buffer[self.position..];
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.position += taken;
        Ok(taken)
    }

    fn advance(&mut self) -> Result<(), ExchangeError> {
        self.current = false;
        match self.lines.expect("a pack")? {
            Line::Flush => self.ended = true,
            Line::Data([1, ..]) => {
                self.current = true;
                self.position = 1;
            }
            Line::Data([2, ..]) => (self.heard)(),
            Line::Data([3, words @ ..]) => return Err(refused(words)),
            _ => {
                return Err(ExchangeError::protocol(
                    "neither a side-band nor the end of a pack",
                ));
            }
        }
        Ok(())
    }
}

/// Any bytes as packets and as a side-band: neither panics, and no line is longer than allowed.
pub fn fuzz_pktline(bytes: &[u8]) {
    let mut lines = Reader::new(bytes);
    while let Ok(Some(line)) = lines.next() {
        if let Line::Data(data) = line {
            assert!(data.len() + 4 <= LINE_BYTES_MAX);
        }
    }
    let mut lines = Reader::new(bytes);
    let mut band = BandReader::new(&mut lines, &|| {});
    let mut buffer = [0; 1000];
    while let Ok(1..) = band.read(&mut buffer) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_round_trip() {
        let mut wire = Vec::new();
        data(&mut wire, b"hello\n").unwrap();
        special(&mut wire, &Line::Delimiter).unwrap();
        data(&mut wire, b"").unwrap();
        special(&mut wire, &Line::Flush).unwrap();
        let mut reader = Reader::new(&wire[..]);
        assert_eq!(reader.next().unwrap().unwrap().text(), Some(&b"hello"[..]));
        assert_eq!(reader.next().unwrap(), Some(Line::Delimiter));
        assert_eq!(reader.next().unwrap(), Some(Line::Data(b"")));
        assert_eq!(reader.next().unwrap(), Some(Line::Flush));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn bad_lines_are_errors() {
        for bad in [
            &b"0003"[..],
            b"zzzz",
            b"fff1",
            b"00",
            b"0009abc",
            b"+00a123456",
        ] {
            assert!(Reader::new(bad).next().is_err(), "{bad:?}");
        }
        assert!(matches!(
            Reader::new(&b"000dERR gone\x1b"[..]).expect("x"),
            Err(ExchangeError::Refused(words)) if words == "gone"
        ));
    }

    #[test]
    fn bands_round_trip() {
        let pack: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let mut wire = Vec::new();
        let mut writer = BandWriter::new(&mut wire);
        writer.write_all(&pack).unwrap();
        writer.flush().unwrap();
        data(&mut wire, b"\x02half way").unwrap();
        special(&mut wire, &Line::Flush).unwrap();
        let mut lines = Reader::new(&wire[..]);
        let mut band = BandReader::new(&mut lines, &|| {});
        let (mut got, mut buffer) = (Vec::new(), [0; 777]);
        loop {
            match band.read(&mut buffer).unwrap() {
                0 => break,
                count => got.extend_from_slice(&buffer[..count]),
            }
        }
        assert!(got == pack);
    }
}
