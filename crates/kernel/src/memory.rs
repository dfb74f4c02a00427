//! How this process asks the kernel for memory and gives it back.

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

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::process::Command;
    use std::{env, fs, thread};

    use super::*;

    const CHILD: &str = "LOCUM_TEST_ARENA";

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
