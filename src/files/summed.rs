//! A stream with a checksum.

use std::io::{self, Read, Write};

/// Counts the bytes that pass through, and sums them (CRC-32).
pub(crate) struct Summed<S> {
    pub inner: S,
    pub crc: crc32fast::Hasher,
    pub bytes: u64,
}

impl<S> Summed<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, crc: crc32fast::Hasher::new(), bytes: 0 }
    }

    fn count(&mut self, passed: &[u8]) {
        self.crc.update(passed);
        self.bytes += passed.len() as u64;
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.count(&buffer[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count(&buffer[..n]);
        Ok(n)
    }
}
