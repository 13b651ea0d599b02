/* flush.c: linked to every program that coverage is measured with, so that a process that ends by abort() or _exit()
   leaves its counts behind, as one that returns from main does. Linked with --wrap=abort --wrap=_exit.
   clang-19 -c tests/coverage/flush.c -o build/coverage/flush.o */
int __llvm_profile_write_file(void);
_Noreturn void __real_abort(void);
_Noreturn void __real__exit(int status);
_Noreturn void __wrap_abort(void);
_Noreturn void __wrap__exit(int status);

_Noreturn void __wrap_abort(void) {
    (void)__llvm_profile_write_file();
    __real_abort();
}

_Noreturn void __wrap__exit(int status) {
    (void)__llvm_profile_write_file();
    __real__exit(status);
}
