//! Writes lines to a file descriptor that may fail, or accept nothing for a while.
//!
//! `println!` and `eprintln!` panic when they cannot write, and `io::stdout()` keeps what it could
//! not write and tries again at exit, which may then never end. Run an outlet in its own thread: a
//! write waits as long as the reader of the pipe does.

use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

/// An open file, pipe or terminal.
#[derive(Debug)]
pub(crate) struct Outlet {
    file: File,
    /// Whether the last line may have been written in part.
    torn: bool,
}

impl Outlet {
    /// Duplicates standard output, without the buffer of the standard library.
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::duplicate(&io::stdout())
    }

    /// Duplicates the descriptor of standard error.
    pub(crate) fn stderr() -> io::Result<Self> {
        Self::duplicate(&io::stderr())
    }

    fn duplicate(of: &impl AsFd) -> io::Result<Self> {
        Ok(of.as_fd().try_clone_to_owned().map(File::from)?.into())
    }

    /// Continues in another file.
    pub(crate) fn replace(&mut self, file: File) {
        self.file = file;
    }

    /// Writes whole lines. After an error, some of them may have been written, the last one in
    /// part; the next write then starts on a new line.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n")?;
        }
        self.torn = true;
        self.write_all(lines)?;
        self.torn = false;
        Ok(())
    }

    fn write_all(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process that has the same pipe open has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.until_writable()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn until_writable(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<File> for Outlet {
    fn from(file: File) -> Self {
        Self { file, torn: false }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::OwnedFd, thread};

    use rustix::io::ioctl_fionbio;

    use super::*;

    /// No line is lost when another process changes the pipe that it shares with patgate.
    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (reader, writer) = io::pipe().unwrap();
        ioctl_fionbio(&reader, true).unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        let mut outlet = Outlet::from(File::from(OwnedFd::from(writer)));
        // More than a pipe holds.
        let lines = b"line\n".repeat(100_000);
        let writing = thread::spawn({
            let lines = lines.clone();
            move || outlet.write(&lines)
        });
        let mut read = Vec::new();
        let mut reader = File::from(OwnedFd::from(reader));
        loop {
            let _ = poll(&mut [PollFd::new(&reader, PollFlags::IN)], None);
            match reader.read_to_end(&mut read) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        writing.join().unwrap().unwrap();
        assert_eq!(read, lines);
    }

    #[cfg(target_os = "linux")] // Other systems have no /dev/full.
    #[test]
    fn a_full_disk_is_an_error_and_what_comes_after_it_a_line_of_its_own() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut outlet = Outlet::from(full);
        assert_eq!(outlet.write(b"lost\n").unwrap_err().kind(), ErrorKind::StorageFull);
        let mut file = tempfile::tempfile().unwrap();
        outlet.replace(file.try_clone().unwrap());
        outlet.write(b"written\n").unwrap();
        outlet.write(b"another\n").unwrap();
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nwritten\nanother\n");
    }
}
