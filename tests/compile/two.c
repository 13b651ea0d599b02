/* Runs two copies of the program, each with an implementation of its own, in one process. */
int run_a(void);
int run_b(void);

int main(void) { return run_a() | run_b() | run_a(); }
