//! Where the code of the main program lies in memory: dl_iterate_phdr(3).
#![expect(unsafe_code, reason = "the loader's list of images is a C interface")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::slice;

/// The main program as loaded into this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// What the loader added to the addresses in the file; differs between processes (ASLR).
    base: usize,
    /// Executable segments, by address in memory.
    code: Vec<Range<usize>>,
}

impl Image {
    pub(crate) fn of_main_program() -> Self {
        let mut image = Self::default();
        // SAFETY: `first_image` has the type that the loader calls, with our `image` as its data,
        // which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(first_image), (&raw mut image).cast()) };
        image
    }

    /// The place of a function as any process with the same image can find it.
    pub(crate) fn offset_of(&self, address: usize) -> Option<u64> {
        let inside = self.code.iter().any(|segment| segment.contains(&address));
        inside.then(|| address.wrapping_sub(self.base) as u64)
    }

    /// The address for such a place, if it lies in code.
    pub(crate) fn address_of(&self, offset: u64) -> Option<usize> {
        let address = self.base.wrapping_add(usize::try_from(offset).ok()?);
        self.code
            .iter()
            .any(|segment| segment.contains(&address))
            .then_some(address)
    }
}

/// The loader visits the main program first.
extern "C" fn first_image(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid description for the time of the call.
    let info = unsafe { &*info };
    // SAFETY: `data` is the Image that `of_main_program` borrowed mutably for this call.
    let image = unsafe { &mut *data.cast::<Image>() };
    // SAFETY: the loader keeps `dlpi_phnum` headers at `dlpi_phdr`.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let to_usize = |value| usize::try_from(value).unwrap_or(usize::MAX);
    image.base = to_usize(info.dlpi_addr);
    image.code = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
        .map(|header| {
            let start = image.base.wrapping_add(to_usize(header.p_vaddr));
            start..start.saturating_add(to_usize(header.p_memsz))
        })
        .collect();
    1
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn code_of_the_main_program_is_found_again() {
        let image = Image::of_main_program();
        let function = code_of_the_main_program_is_found_again as fn() as usize;
        let offset = image
            .offset_of(function)
            .expect("this function is in the main program");
        assert_eq!(image.address_of(offset), Some(function));
    }

    #[test]
    fn data_and_library_code_are_refused() {
        let image = Image::of_main_program();
        static DATA: u8 = 0;
        assert_eq!(image.offset_of(&raw const DATA as usize), None);
        let getpid: unsafe extern "C" fn() -> i32 = libc::getpid;
        if std::fs::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.contains("libc.so")) {
            assert_ne!(image.address_of(image.base as u64), Some(getpid as usize));
        }
        for hostile in [u64::MAX, 1 << 47, 0x7fff_ffff_ffff_ffff] {
            assert_eq!(image.address_of(hostile), None);
        }
    }
}
