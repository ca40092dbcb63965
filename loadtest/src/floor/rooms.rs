//! Topics and their subscribers.
//!
//! A member is a connection number and whether it wants its own broadcasts back, packed into one word. Rooms are
//! dropped with their last member.

use std::collections::HashMap;

/// A subscriber of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member(u32);

/// Set when the member receives its own broadcasts.
const ECHO_BIT: u32 = 1 << 31;

impl Member {
    fn new(connection: u32, echo: bool) -> Self {
        Self(connection | if echo { ECHO_BIT } else { 0 })
    }

    /// Number of the connection.
    pub fn connection(self) -> u32 {
        self.0 & !ECHO_BIT
    }

    /// Whether a message of `sender` goes to this member.
    #[inline]
    pub fn receives_from(self, sender: u32) -> bool {
        self.0 != sender
    }
}

#[derive(Default)]
struct Room {
    topic: Box<[u8]>,
    members: Vec<Member>,
}

/// All rooms.
#[derive(Default)]
pub struct Rooms {
    numbers: HashMap<Box<[u8]>, u32>,
    rooms: Vec<Room>,
    free: Vec<u32>,
}

impl Rooms {
    /// Adds `connection` to the room of `topic` and returns the room's number; `None` if it is in there already.
    pub fn join(&mut self, topic: &[u8], connection: u32, echo: bool) -> Option<u32> {
        let number = match self.numbers.get(topic) {
            Some(number) => *number,
            None => self.open(topic),
        };
        let members = &mut self.rooms[number as usize].members;
        if members.iter().any(|member| member.connection() == connection) {
            return None;
        }
        if members.is_empty() {
            members.reserve_exact(1);
        }
        members.push(Member::new(connection, echo));
        Some(number)
    }

    fn open(&mut self, topic: &[u8]) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(Room::default());
            self.rooms.len() as u32 - 1
        });
        self.rooms[number as usize].topic = topic.into();
        self.numbers.insert(topic.into(), number);
        number
    }

    /// Members of the room of `topic`.
    #[inline]
    pub fn members(&self, topic: &[u8]) -> &[Member] {
        self.numbers.get(topic).map_or(&[], |number| &self.rooms[*number as usize].members)
    }

    /// Removes `connection` from room `number`.
    pub fn leave(&mut self, number: u32, connection: u32) {
        let room = &mut self.rooms[number as usize];
        if let Some(at) = room.members.iter().position(|member| member.connection() == connection) {
            room.members.swap_remove(at);
        }
        if room.members.is_empty() {
            let topic = std::mem::take(&mut room.topic);
            room.members = Vec::new();
            self.numbers.remove(&topic);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_and_go_and_empty_rooms_are_dropped() {
        let mut rooms = Rooms::default();
        let number = rooms.join(b"a", 1, false).unwrap();
        assert_eq!(rooms.join(b"a", 1, true), None);
        assert_eq!(rooms.join(b"a", 2, true), Some(number));
        let receivers = |sender: u32, rooms: &Rooms| -> Vec<u32> {
            let members = rooms.members(b"a").iter();
            members.filter(|m| m.receives_from(sender)).map(|m| m.connection()).collect()
        };
        assert_eq!(receivers(1, &rooms), [2]);
        assert_eq!(receivers(2, &rooms), [1, 2], "2 joined with self");
        rooms.leave(number, 1);
        rooms.leave(number, 2);
        assert!(rooms.members(b"a").is_empty());
        assert_eq!(rooms.join(b"b", 3, false), Some(number), "the number is used again");
    }
}
