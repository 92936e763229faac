from escala.cli import main

main()
