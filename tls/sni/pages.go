package sni

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// largePage is the size of the processor's large pages.
const largePage = 2 << 20

// inLargePages asks the kernel for large pages under the slots of a large table: else most lookups wait for the
// processor's page tables before they wait for the slot. It is advice, without effect on what the memory holds; a kernel
// that does not take it leaves lookups a little slower, which is no error.
func inLargePages(slots []slot) {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(slots)))
	skip := -start % largePage
	size := uintptr(cap(slots)) * unsafe.Sizeof(slot{})
	if size < skip+largePage {
		return
	}
	size = (size - skip) / largePage * largePage
	memory := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(slots)), skip)), size)
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(memory, unix.MADV_COLLAPSE) // what the runtime had in small pages before
}
