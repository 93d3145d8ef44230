/* Stands for the frozen Python where the tests run from source: the interpreter, with argv kept as it is. */
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char **words = calloc((size_t)argc + 4, sizeof *words);
    if (words == NULL)
        return 70;
    words[0] = PYTHON;
    words[1] = "-c";
    words[2] = "import sys; sys.path.insert(0, '" ROOT "'); del sys.argv[0];"
               "from cni_plugin.entry import main; sys.exit(main())";
    for (int i = 0; i < argc; i++)
        words[3 + i] = argv[i];
    execv(PYTHON, words);
    return 71;
}
