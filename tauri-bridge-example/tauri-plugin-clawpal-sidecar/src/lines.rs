//! Lines of a stream of bytes, none longer than a limit.

use std::io::{self, BufRead, Read};

pub enum Line {
    Whole,
    /// The last one, without its LF.
    Unended,
    /// Longer than the limit; the buffer has its beginning.
    TooLong,
    End,
}

/// Reads the next line, without its LF, into `buffer`.
pub fn read_line(source: &mut impl BufRead, buffer: &mut Vec<u8>, max_bytes: usize) -> io::Result<Line> {
    buffer.clear();
    let limit = max_bytes as u64 + 1;
    source.by_ref().take(limit).read_until(b'\n', buffer)?;
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
        return Ok(Line::Whole);
    }
    Ok(match buffer.len() {
        0 => Line::End,
        length if length > max_bytes => Line::TooLong,
        _ => Line::Unended,
    })
}

/// Passes over the rest of a line that was too long.
pub fn skip_line(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let chunk = source.fill_buf()?;
        if chunk.is_empty() {
            return Ok(());
        }
        if let Some(at) = chunk.iter().position(|&byte| byte == b'\n') {
            source.consume(at + 1);
            return Ok(());
        }
        let length = chunk.len();
        source.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], max_bytes: usize) -> Vec<Option<Vec<u8>>> {
        let mut source = io::BufReader::with_capacity(3, text);
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        loop {
            match read_line(&mut source, &mut buffer, max_bytes).unwrap() {
                Line::Whole | Line::Unended => found.push(Some(buffer.clone())),
                Line::TooLong => {
                    found.push(None);
                    skip_line(&mut source).unwrap();
                }
                Line::End => return found,
            }
        }
    }

    #[test]
    fn lines_end_at_line_feeds_only() {
        let some = |text: &[u8]| Some(text.to_vec());
        assert_eq!(lines(b"one\r\n\ntw\ro\nlast", 10), [some(b"one\r"), some(b""), some(b"tw\ro"), some(b"last")]);
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_a_longer_one_is_passed_over() {
        let some = |text: &[u8]| Some(text.to_vec());
        assert_eq!(lines(b"12345\n123456\n1\n12345", 5), [some(b"12345"), None, some(b"1"), some(b"12345")]);
        assert_eq!(lines(b"123456", 5), [None]);
    }
}
