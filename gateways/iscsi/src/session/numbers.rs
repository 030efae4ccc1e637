//! Numbers of commands: which may come, and in which order (RFC 7143 section 4.2.2.1).

/// Commands of one session that may be under way. Initiators' queues are 32 to 128 deep.
pub const WINDOW: u32 = 128;

/// Whether a command's turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has, and the next number is awaited now.
    Now,
    /// Others come before it, by another connection.
    Later,
    /// Its number is not in the window: it is ignored.
    Never,
}

/// The window of a session.
#[derive(Clone, Copy, Debug)]
pub struct CommandNumbers {
    expected: u32,
    command_max: u32,
    under_way: u32,
}

impl CommandNumbers {
    /// A session whose first command will have this number.
    pub fn new(first: u32) -> Self {
        Self {
            expected: first,
            command_max: first.wrapping_add(WINDOW - 1),
            under_way: 0,
        }
    }

    /// Judges the number of a command that is not immediate.
    pub fn take(&mut self, number: u32) -> Turn {
        if number == self.expected && self.is_open() {
            self.expected = self.expected.wrapping_add(1);
            Turn::Now
        } else if number.wrapping_sub(self.expected) < self.length() {
            Turn::Later
        } else {
            Turn::Never
        }
    }

    /// How many numbers the window has.
    fn length(&self) -> u32 {
        self.command_max.wrapping_sub(self.expected).wrapping_add(1)
    }

    fn is_open(&self) -> bool {
        self.length() != 0
    }

    /// A command has begun.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// A command has ended.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Commands under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// `ExpCmdSN` and `MaxCmdSN`, to be told. The greatest number only ever grows.
    pub fn tell(&mut self) -> (u32, u32) {
        let free = WINDOW.saturating_sub(self.under_way);
        if free > self.length() {
            self.command_max = self.expected.wrapping_add(free).wrapping_sub(1);
        }
        (self.expected, self.command_max)
    }
}

#[cfg(test)]
mod tests {
    //! The edges of the window, also where numbers wrap.
    use super::*;

    #[test]
    fn numbers_below_and_above_the_window_are_ignored() {
        let mut numbers = CommandNumbers::new(5);
        assert_eq!(numbers.take(4), Turn::Never);
        assert_eq!(numbers.take(5 + WINDOW), Turn::Never);
        assert_eq!(numbers.take(6), Turn::Later);
        assert_eq!(numbers.take(5), Turn::Now);
        assert_eq!(numbers.take(5), Turn::Never);
        assert_eq!(numbers.take(6), Turn::Now);
        assert_eq!(numbers.tell(), (7, 7 + WINDOW - 1));
    }

    #[test]
    fn numbers_wrap() {
        let mut numbers = CommandNumbers::new(u32::MAX);
        assert_eq!(numbers.take(u32::MAX), Turn::Now);
        assert_eq!(numbers.take(0), Turn::Now);
        assert_eq!(numbers.tell(), (1, WINDOW));
    }

    #[test]
    fn the_window_closes_when_nothing_ends_and_never_shrinks() {
        let mut numbers = CommandNumbers::new(0);
        for number in 0..WINDOW {
            assert_eq!(numbers.take(number), Turn::Now);
            numbers.begin();
        }
        assert_eq!(numbers.take(WINDOW), Turn::Never);
        assert_eq!(numbers.tell(), (WINDOW, WINDOW - 1));
        numbers.end();
        assert_eq!(numbers.tell(), (WINDOW, WINDOW));
        assert_eq!(numbers.take(WINDOW), Turn::Now);
    }
}
