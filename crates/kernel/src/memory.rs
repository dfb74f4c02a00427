//! How this process asks the kernel for memory and gives it back.

use std::ops::Range;
use std::{fs, io};

/// Blocks from this size on are mappings of their own, which go back to the kernel when they are
/// freed: lists that a start or a promotion of thousands of instances fills once. The C library
/// would raise the limit by itself, to 32 MiB at most, and keep such blocks.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: libc::c_int = 128 * 1024;

/// All threads take memory from one arena, and large blocks go back when they are freed. The
/// default of an arena for each thread is for programs that allocate on many processors at once;
/// here it keeps what one thread has freed from the others. To be called before a second thread is
/// there. `false` when the C library does not know of such things, and goes on as it is used to.
pub fn share_one_arena() -> bool {
    #[cfg(target_env = "gnu")]
    {
        let set = |parameter, value| {
            // SAFETY: mallopt(3) takes two integers and changes how the allocator goes on; memory
            // that is allocated already stays as it is.
            unsafe { libc::mallopt(parameter, value) == 1 }
        };
        set(libc::M_ARENA_MAX, 1) && set(libc::M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Lets go of the program's text and constants, and those of its libraries: most has been used once, for the
/// configuration and the start, and would count as resident for as long as the process runs. What is
/// used again is found in the page cache at its next use. To be called when a start or a reload is
/// over.
///
/// # Errors
/// When the kernel does not say what is mapped; then all stays as it is.
pub fn release_text() -> io::Result<()> {
    for Range { start, end } in unchanged_text(&fs::read_to_string("/proc/self/smaps")?) {
        let length = end - start;
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is one private mapping of a file, not writable, with no page of its own:
        // what is dropped is read again from the file when it is next touched.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Mappings of files that are run or read and that nobody has changed: a page in which a debugger has
/// set a breakpoint is no file's any more, nor is one with addresses that the loader has put in.
fn unchanged_text(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut last = None;
    for line in smaps.lines() {
        if let Some(header) = mapping(line) {
            last = header;
        } else if let Some(rest) = line.strip_prefix("Anonymous:")
            && rest.trim() == "0 kB"
        {
            found.extend(last.take());
        }
    }
    found
}

/// `None` for a line that begins no mapping; within it, the range of one that is a file's and private
/// and cannot be written.
fn mapping(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let [rights, _offset, _device, inode] = std::array::from_fn(|_| words.next().unwrap_or("0"));
    Some((matches!(rights, "r-xp" | "r--p") && inode != "0").then_some(range))
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::process::Command;
    use std::{env, thread};

    use super::*;

    const CHILD: &str = "LOCUM_TEST_ARENA";

    #[test]
    fn text_is_what_is_of_a_file_and_unchanged() {
        let smaps = "\
            1000-2000 r--p 00000000 fe:00 77 /usr/bin/locum\nRss: 4 kB\nAnonymous: 8 kB\n\
            2000-9000 r-xp 00001000 fe:00 77 /usr/bin/a name\nRss: 8 kB\nAnonymous:  0 kB\n\
            9000-a000 r-xp 00001000 fe:00 78 /usr/bin/debugged\nAnonymous: 4 kB\n\
            d000-e000 r--p 00000000 fe:00 79 /usr/lib/libc.so.6\nAnonymous: 0 kB\n\
            a000-b000 rw-p 00001000 fe:00 77 /usr/bin/locum\nAnonymous: 0 kB\n\
            b000-c000 r-xp 00000000 00:00 0 [vdso]\nAnonymous: 0 kB\n\
            c000-d000 r-xs 00000000 00:01 9 /dev/shared\nAnonymous: 0 kB\nVmFlags: rd ex\n";
        assert_eq!(unchanged_text(smaps), [0x2000..0x9000, 0xd000..0xe000]);
        assert_eq!(unchanged_text("no-such 0-\n-\nAnonymous: 0 kB\n"), []);
    }

    /// The same work takes as much again, and what is not done any more is gone.
    #[test]
    fn released_text_is_not_resident_and_runs_again() {
        fn resident() -> u64 {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        }
        let name = "memory::tests::released_text_is_not_resident_and_runs_again";
        if env::var_os(CHILD).is_none() {
            let mut child = Command::new(env::current_exe().unwrap());
            child.args(["--exact", name, "--test-threads=1"]).env(CHILD, "1");
            assert!(child.status().unwrap().success());
            return;
        }
        // All of it, as if it had run.
        let text: Vec<_> = unchanged_text(&fs::read_to_string("/proc/self/smaps").unwrap());
        for page in text.iter().flat_map(|range| range.clone().step_by(4096)) {
            // SAFETY: the kernel has said that it is mapped and may be read.
            unsafe { std::ptr::read_volatile(page as *const u8) };
        }
        let before = resident();
        release_text().unwrap();
        let after = resident();
        let all = text.iter().map(|range| (range.end - range.start) as u64 / 1024).sum::<u64>();
        assert!(after + all / 2 < before, "{before} KiB, then {after} of {all} KiB of text");
    }

    /// In a process of its own, whose only thread the test is.
    #[test]
    fn threads_share_the_first_arena() {
        if env::var_os(CHILD).is_none() {
            let name = "memory::tests::threads_share_the_first_arena";
            let mut child = Command::new(env::current_exe().unwrap());
            child.args(["--exact", name, "--test-threads=1"]).env(CHILD, "1");
            assert!(child.status().unwrap().success());
            return;
        }
        assert!(share_one_arena());
        let at = thread::spawn(|| Box::into_raw(Box::new([0_u8; 2000])) as usize).join().unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let heap = maps.lines().find(|line| line.ends_with("[heap]")).unwrap();
        let (start, end) = heap.split_once(' ').unwrap().0.split_once('-').unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        assert!((address(start)..address(end)).contains(&at), "{at:x} not in {heap}");
    }
}
