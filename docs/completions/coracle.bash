# Completion for bash (and zsh, after bashcompinit): commands and options as the program's own help says them, containers as
# `list` knows them. Nothing here has to follow the command line.

_coracle_options() {
    "${words[0]}" "$@" --help 2>/dev/null | grep -oE '^ +(-[a-zA-Z], )?--[a-z0-9-]+' | grep -oE -- '--?[a-zA-Z0-9-]+'
}

_coracle() {
    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local words=("${COMP_WORDS[@]}") given=() root=() command= at=1
    COMPREPLY=()
    # Where the command stands, behind the options that are for all.
    while ((at < COMP_CWORD)); do
        case ${words[at]} in
            --root) root=(--root "${words[at + 1]}") at=$((at + 1)) ;;
            --log | --log-format | --log-level | --rootless | --cgroup-manager) at=$((at + 1)) ;;
            -*) ;;
            *)
                command=${words[at]}
                break
                ;;
        esac
        at=$((at + 1))
    done
    case $before in
        --root | --log | --bundle | -b | --store | --image-path | --parent-path | --work-path | --cert-dir)
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            [[ $before == --log ]] && mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        --config | -f | --process | -p | --resources | -r | --pid-file | --console-socket | --pidfd-socket | --authfile)
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
    esac
    if [[ -z $command ]]; then
        if [[ $cur == -* ]]; then
            given=$(_coracle_options)
        else
            given=$("${words[0]}" --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
        fi
    elif [[ $cur == -* ]]; then
        [[ $command == run && " ${words[*]} " == *" --image"* ]] && command=run-image
        given=$(_coracle_options "$command")
    else
        case $command in
            start | exec | state | kill | stop | delete | pause | resume | checkpoint | ps | update | events)
                given=$("${words[0]}" "${root[@]}" list --quiet 2>/dev/null)
                ;;
            rmi) given=$("${words[0]}" images --quiet 2>/dev/null) ;;
            unpack | inspect)
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
                ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$given" -- "$cur")
}

complete -F _coracle coracle
